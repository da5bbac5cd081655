package delivery

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// pace keeps the drains together from taking more than live traffic can spare: speed times what comes in, and minRate at least.
type pace struct {
	speed, minRate float64 // of the section
	limiter        *rate.Limiter

	in, out     atomic.Int64  // bytes, ever
	inRate      atomic.Uint64 // bytes a second, the bits of a float64
	outRate     atomic.Uint64
	lastIn      int64
	lastOut     int64
	lastMeasure time.Time
}

const (
	// chunkBytes is how much of a log is sent at a time, and waited for: what may be sent twice after a crash.
	chunkBytes = 256 << 10

	measureEvery = time.Second
	// smoothing is the weight of the latest measurement.
	smoothing = 0.3
)

func newPace(cfg DrainConfig) *pace {
	p := &pace{speed: cfg.Speed, minRate: float64(cfg.MinRate), lastMeasure: time.Now()}
	p.limiter = rate.NewLimiter(rate.Limit(p.minRate), chunkBytes)
	return p
}

// came counts bytes that were added to the spool.
func (p *pace) came(bytes int) { p.in.Add(int64(bytes)) }

// went counts bytes that have left it.
func (p *pace) went(bytes int) { p.out.Add(int64(bytes)) }

// unlimited is for a drain that no live traffic suffers from. It is called before the first wait.
func (p *pace) unlimited() {
	p.minRate = math.Inf(1)
	p.limiter.SetLimit(rate.Inf)
}

// wait waits until so many bytes may be sent.
func (p *pace) wait(ctx context.Context, bytes int) error {
	for ; bytes > 0; bytes -= chunkBytes {
		if err := p.limiter.WaitN(ctx, min(bytes, chunkBytes)); err != nil {
			return err
		}
	}
	return nil
}

// measure takes the rates since it was called last.
func (p *pace) measure(now time.Time) {
	seconds := now.Sub(p.lastMeasure).Seconds()
	if seconds <= 0 {
		return
	}
	in, out := p.in.Load(), p.out.Load()
	smooth(&p.inRate, float64(in-p.lastIn)/seconds)
	smooth(&p.outRate, float64(out-p.lastOut)/seconds)
	p.lastIn, p.lastOut, p.lastMeasure = in, out, now
	p.limiter.SetLimit(rate.Limit(max(p.minRate, p.speed*p.coming())))
}

func smooth(value *atomic.Uint64, latest float64) {
	before := math.Float64frombits(value.Load())
	value.Store(math.Float64bits(before + smoothing*(latest-before)))
}

// coming is how many bytes a second come into the spool, drained how many leave it.
func (p *pace) coming() float64  { return math.Float64frombits(p.inRate.Load()) }
func (p *pace) drained() float64 { return math.Float64frombits(p.outRate.Load()) }

// measure keeps the rates up to date.
func (d *Delivery) measure() {
	for d.pause(measureEvery) {
		d.pace.measure(time.Now())
	}
}
