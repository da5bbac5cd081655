package events

import (
	"context"
	"strings"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Processor takes a batch from a protocol to its outcomes. A single event and a recording are batches of one.
type Processor interface {
	// Process gives every event of the batch an outcome and enters them in the ledger. Events that the protocol itself has
	// rejected come with their outcome set. It is safe for concurrent use; the batch belongs to the caller again when it
	// returns.
	Process(ctx context.Context, batch *Batch)
}

// Observer looks at every batch when all of its events have their outcome, before the client is answered. It changes nothing,
// keeps nothing of the batch, and does not wait for anybody. It must be safe for concurrent use.
type Observer interface{ Observe(batch *Batch) }

type processor struct {
	pipeline  *Pipeline
	sink      Sink
	ledger    *Ledger
	observers []Observer
	log       *zap.Logger
	latency   tally.Timer
}

// NewProcessor joins a pipeline, a sink, the ledger and the observers. At level debug, every event that is not accepted is
// logged with its reason. How long the sink takes per batch, in seconds, is recorded in the scope's timer "sink_seconds".
func NewProcessor(pipeline *Pipeline, sink Sink, ledger *Ledger, log *zap.Logger, scope tally.Scope, observers ...Observer) Processor {
	return &processor{
		pipeline: pipeline, sink: sink, ledger: ledger, observers: observers, log: log, latency: scope.Timer("sink_seconds"),
	}
}

func (p *processor) Process(ctx context.Context, batch *Batch) {
	defer p.settle(batch)
	p.pipeline.Run(ctx, batch)
	if batch.Pending() == 0 {
		return
	}
	start := time.Now()
	p.sink.Write(ctx, batch)
	p.latency.Record(time.Since(start))
}

// settle enters the batch in the ledger, also when a stage or sink panicked; what they left undecided has failed.
func (p *processor) settle(batch *Batch) {
	batch.FailPending(ReasonUnsettled, Errorf(Internal, "the event was left without an outcome"))
	p.ledger.Enter(batch)
	for _, observer := range p.observers {
		observer.Observe(batch)
	}
	if p.log.Core().Enabled(zapcore.DebugLevel) {
		p.explain(batch)
	}
}

// explain logs what became of the events that were not accepted.
func (p *processor) explain(batch *Batch) {
	for i := range batch.Events {
		event := &batch.Events[i]
		if event.Outcome.State == StateAccepted {
			continue
		}
		p.log.Debug("event "+event.Outcome.State.String(),
			zap.Stringer("event_id", event.UUID),
			zap.String("token", strings.Clone(batch.Token)),
			zap.String("distinct_id", strings.Clone(event.DistinctID)),
			zap.String("event", strings.Clone(event.Name)),
			zap.String("reason", string(event.Outcome.Reason)),
			zap.String("request_id", batch.RequestID),
			zap.Error(event.Outcome.Err),
		)
	}
}
