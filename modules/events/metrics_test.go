package events

import (
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// scrape returns the value of every sample by the sample's name. A sample with a reason has it in braces behind the
// name.
func scrape(t *testing.T, gatherer prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := gatherer.Gather()
	require.NoError(t, err)
	samples := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			key := family.GetName()
			for _, label := range metric.GetLabel() {
				key += "{" + label.GetName() + "=" + label.GetValue() + "}"
			}
			samples[key] = metric.GetCounter().GetValue()
		}
	}
	return samples
}

func mixedBatch() *Batch {
	batch := &Batch{Events: make([]Event, 8)}
	batch.Events[0].Accept()
	batch.Events[1].Accept()
	batch.Events[2].Drop(ReasonPerformanceEvent)
	batch.Events[3].Reject(ReasonMissingName, nil)
	batch.Events[4].Reject(ReasonTooLarge, nil)
	batch.Events[5].Fail(ReasonTimeout, nil)
	batch.Events[6].Fail(ReasonTimeout, nil)
	batch.Events[7].AcceptDuplicate()
	return batch
}

func TestTheLedgerIsShownByOutcomeAndReason(t *testing.T) {
	ledger := NewLedger()
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(NewCollector(ledger)))
	require.Equal(t, map[string]float64{
		"capture_events_received_total":   0,
		"capture_events_accepted_total":   0,
		"capture_events_duplicates_total": 0,
	}, scrape(t, registry))

	ledger.Enter(mixedBatch())

	require.Equal(t, map[string]float64{
		"capture_events_received_total":                            8,
		"capture_events_accepted_total":                            3,
		"capture_events_duplicates_total":                          1,
		"capture_events_dropped_total{reason=performance_event}":   1,
		"capture_events_rejected_total{reason=missing_event_name}": 1,
		"capture_events_rejected_total{reason=event_too_large}":    1,
		"capture_events_failed_total{reason=sink_timeout}":         2,
	}, scrape(t, registry))
}

func TestReceivedEqualsTheSumOfTheOutcomesInEveryScrape(t *testing.T) {
	const writers, rounds = 4, 300
	ledger := NewLedger()
	registry := prometheus.NewRegistry()
	require.NoError(t, registry.Register(NewCollector(ledger)))

	var entering sync.WaitGroup
	for range writers {
		entering.Go(func() {
			for range rounds {
				ledger.Enter(mixedBatch())
			}
		})
	}
	done := make(chan struct{})
	go func() { defer close(done); entering.Wait() }()

	const received, duplicates = "capture_events_received_total", "capture_events_duplicates_total"
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		samples := scrape(t, registry)
		sum := -samples[received] - samples[duplicates]
		for _, n := range samples {
			sum += n
		}
		require.Equal(t, samples[received], sum)
	}
	require.EqualValues(t, 8*writers*rounds, scrape(t, registry)[received])
	require.EqualValues(t, writers*rounds, scrape(t, registry)[duplicates])
}
