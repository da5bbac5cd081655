package quota

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/opencapture/capture/modules/events"
)

// far are limits that no benchmark comes near.
func far() *events.Limits {
	limits := quotas("events=1000000000000/month", "events=100000000000/day")
	limits.Rates = rates("events=10000000/s").Rates
	return limits
}

func benchmark(b *testing.B, limits *events.Limits, size int) {
	node := newStore(b).node(nil)
	batch, one := batchOf("phc_a", limits, size), batchOf("phc_a", limits, size)
	accept(one, func() events.Settle { s, _ := node.Process(context.Background(), one); return s }())
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		for i := range batch.Events {
			batch.Events[i].Outcome, batch.Events[i].Charge = events.Outcome{}, 0
		}
		batch.Standings = events.Standings{}
		settle, _ := node.Process(ctx, batch)
		for i := range batch.Events {
			batch.Events[i].Outcome.State = events.StateAccepted
		}
		if settle != nil {
			settle(ctx, batch)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/event")
	b.ReportMetric(float64(node.counters.(shared).takes.Load())/float64(b.N*size), "ops/event")
}

// BenchmarkLimitsFarAway is a project with a quota a month, one a day, and a rate.
func BenchmarkLimitsFarAway(b *testing.B) {
	for _, size := range []int{1, 50} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchmark(b, far(), size) })
	}
}

// BenchmarkNoLimits is a project without limits.
func BenchmarkNoLimits(b *testing.B) {
	for _, size := range []int{1, 50} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchmark(b, nil, size) })
	}
}

// BenchmarkManyTokens is 1000 projects with two quotas and a rate, whose requests have one event or 50. The
// round trips for an event are what counts.
func BenchmarkManyTokens(b *testing.B) {
	shared := newStore(b)
	node := shared.node(func(c *Config) { c.MaxAccounts = DefaultConfig().MaxAccounts })
	limits := quotas("events=10000000/month", "events=1000000/day")
	limits.Rates = rates("events=1000/s").Rates
	const tokens = 1000
	var batches [tokens][2]*events.Batch
	for i := range batches {
		token := fmt.Sprintf("phc_%d", i)
		batches[i] = [2]*events.Batch{batchOf(token, limits, 1), batchOf(token, limits, 50)}
	}
	random := rand.New(rand.NewPCG(1, 2))
	count := 0
	b.ReportAllocs()
	for b.Loop() {
		batch := batches[random.IntN(tokens)][random.IntN(2)]
		count += len(batch.Events)
		for i := range batch.Events {
			batch.Events[i] = events.Event{Name: "e", DistinctID: "u"}
		}
		batch.Standings = events.Standings{}
		settle, _ := node.Process(b.Context(), batch)
		for i := range batch.Events {
			batch.Events[i].Outcome.State = events.StateAccepted
		}
		settle(b.Context(), batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(count), "ns/event")
	b.ReportMetric(float64(shared.takes.Load())/float64(count), "ops/event")
}
