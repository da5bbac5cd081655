package proof

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// turnOf is 985 latencies of one millisecond, and 15 of slow.
func turnOf(slow time.Duration) []time.Duration {
	list := make([]time.Duration, 1000)
	for i := range list {
		list[i] = time.Millisecond
		if i >= 985 {
			list[i] = slow
		}
	}
	return list
}

func TestCompareTellsTheRatioOfThe99thPercentiles(t *testing.T) {
	var same, slower, once []Pair
	for i := range 20 {
		of := turnOf(time.Duration(10+10*(i%3)) * time.Millisecond)
		double := make([]time.Duration, len(of))
		for k := range of {
			double[k] = 2 * of[k]
		}
		same, slower = append(same, Pair{of, of}), append(slower, Pair{of, double})
		once = append(once, Pair{of, of})
	}
	equal := CompareP99(same)
	require.Equal(t, []float64{1, 1, 1}, []float64{equal.Value, equal.Least, equal.Greatest},
		"a turn is compared with that beside it")
	require.InEpsilon(t, float64(10*time.Millisecond), float64(equal.Before), 0.02)
	twice := CompareP99(slower)
	require.InDelta(t, 2, twice.Value, 0.04)
	require.Greater(t, twice.Least, 1.2, "no turn says otherwise")
	// One turn in which something else went on leaves the question open, and does not answer it.
	slow := make([]time.Duration, 1000)
	for i := range slow {
		slow[i] = time.Second
	}
	once[7].After = slow
	open := CompareP99(once)
	require.Greater(t, open.Value, 1.2)
	require.LessOrEqual(t, open.Least, 1.0)
	require.Greater(t, open.Greatest, 1.2)
	// Three such turns of twenty are in all but 4 % of the draws.
	once[8].After, once[9].After = slow, slow
	require.LessOrEqual(t, CompareP99(once).Least, 1.0)
}
