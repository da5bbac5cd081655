package v1

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

var received = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// recorder is a sink that keeps a copy of the events that it accepted. It can be told to end events otherwise.
type recorder struct {
	events []events.Event
	// batch is the last batch without its events.
	batch events.Batch
	judge func(*events.Event)
}

func (r *recorder) Write(_ context.Context, batch *events.Batch) {
	r.batch = *batch
	r.batch.Token, r.batch.Events = strings.Clone(batch.Token), nil
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		if r.judge != nil {
			r.judge(event)
		}
		if event.Accept(); event.Outcome.State != events.StateAccepted {
			continue
		}
		kept := *event
		kept.Name, kept.DistinctID, kept.SessionID = strings.Clone(event.Name), strings.Clone(event.DistinctID),
			strings.Clone(event.SessionID)
		raw := &kept.Raw
		for _, value := range []*[]byte{&raw.Token, &raw.DistinctID, &raw.Timestamp, &raw.Properties} {
			*value = bytes.Clone(*value)
		}
		r.events = append(r.events, kept)
	}
}

type service struct {
	*Handler
	sink   *recorder
	ledger *events.Ledger
	budget *memory.Budget
	scope  tally.TestScope
}

// newHandler is NewHandler with a configuration that does not change.
func newHandler(
	config posthog.Config, decoder *decode.Decoder, budget *memory.Budget, processor events.Processor,
	scope tally.Scope,
) *Handler {
	handler, err := NewHandler(configs.Fixed(config), decoder, budget, processor, scope)
	if err != nil {
		panic(err)
	}
	return handler
}

func newService(t *testing.T, config posthog.Config) *service {
	s := &service{sink: &recorder{}, ledger: events.NewLedger(), budget: memory.NewBudget(1 << 20),
		scope: tally.NewTestScope("", nil)}
	pipeline, err := events.NewPipeline(zap.NewNop(), s.scope)
	require.NoError(t, err)
	s.Handler = newHandler(config, decode.New(route.Fixed(1<<20), s.budget), s.budget,
		events.NewProcessor(pipeline, s.sink, s.ledger, zap.NewNop(), s.scope), s.scope)
	t.Cleanup(func() {
		totals := s.ledger.Snapshot()
		require.Equal(t, totals.Received, totals.Ended())
		require.Zero(t, s.budget.InUse(), "the budget is given back whole")
	})
	return s
}

// benchmarkBatch returns the batch of a server SDK: 50 events in gzip, about 52 KB before compression.
func benchmarkBatch(tb testing.TB) []byte {
	batch, err := os.ReadFile("../../../testkit/testdata/batch50.json.gz")
	require.NoError(tb, err)
	return batch
}
