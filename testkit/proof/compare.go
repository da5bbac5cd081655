package proof

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Pair is what was measured in two turns that follow each other: latencies of the same requests under two conditions.
type Pair struct{ Before, After []time.Duration }

// Ratio is the 99th percentile of all latencies After by that of all latencies Before, and the bounds between which it
// lies with a probability of 99 %, as far as the differences between the pairs tell.
type Ratio struct {
	Before, After   time.Duration
	Value           float64
	Least, Greatest float64
}

// CompareP99 returns the ratio of the pairs. The bounds are those of a bootstrap: the ratio is computed again and again
// for as many pairs as there are, drawn from them by chance and with repetitions. Whatever else happened on the machine
// in some of the turns so makes the bounds wider. Latencies are rounded to one percent.
func CompareP99(pairs []Pair) Ratio {
	const draws, beyond = 4000, 20 // 0.5 % of the draws are beyond each bound
	type bins struct{ before, after *histogram }
	all := make([]bins, len(pairs))
	sum := bins{new(histogram), new(histogram)}
	for i, pair := range pairs {
		all[i] = bins{newHistogram(pair.Before), newHistogram(pair.After)}
		sum.before.add(all[i].before)
		sum.after.add(all[i].after)
	}
	random := rand.New(rand.NewPCG(1, uint64(len(pairs))))
	ratios := make([]float64, draws)
	for i := range ratios {
		drawn := bins{new(histogram), new(histogram)}
		for range pairs {
			pair := all[random.IntN(len(all))]
			drawn.before.add(pair.before)
			drawn.after.add(pair.after)
		}
		ratios[i] = drawn.after.p99() / drawn.before.p99()
	}
	slices.Sort(ratios)
	before, after := sum.before.p99(), sum.after.p99()
	return Ratio{
		Before: time.Duration(before), After: time.Duration(after), Value: after / before,
		Least: ratios[beyond], Greatest: ratios[draws-1-beyond],
	}
}

// histogram counts latencies. Each bin is one percent further than the one before; the first is at a microsecond.
type histogram struct {
	total int
	bins  [1900]int // up to 160 s
}

const binStep = 0.01 // of the logarithm

func newHistogram(latencies []time.Duration) *histogram {
	h := &histogram{total: len(latencies)}
	for _, latency := range latencies {
		bin := int(math.Log(max(1, float64(latency)/float64(time.Microsecond))) / binStep)
		h.bins[min(bin, len(h.bins)-1)]++
	}
	return h
}

func (h *histogram) add(other *histogram) {
	h.total += other.total
	for i, n := range &other.bins {
		h.bins[i] += n
	}
}

// p99 returns the 99th percentile in nanoseconds.
func (h *histogram) p99() float64 {
	beyond := h.total / 100
	for bin := len(h.bins) - 1; bin >= 0; bin-- {
		if beyond -= h.bins[bin]; beyond < 0 {
			return float64(time.Microsecond) * math.Exp(float64(bin)*binStep)
		}
	}
	return float64(time.Microsecond)
}
