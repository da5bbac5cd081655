package events

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/opencapture/capture/modules/panics"
)

// Processor takes a batch from a protocol to its outcomes. A single event and a recording are batches of one.
type Processor interface {
	// Process gives every event of the batch an outcome and enters the events in the ledger. Events that the protocol
	// itself has rejected come with their outcome set. Process is safe for concurrent use. The batch belongs to the
	// caller again when Process returns.
	Process(ctx context.Context, batch *Batch)
}

type processor struct {
	pipeline *Pipeline
	sink     Sink
	ledger   *Ledger
	log      *zap.Logger
	latency  tally.Timer
}

// NewProcessor joins a pipeline, a sink and the ledger. At level debug it logs a line for every event, with its
// outcome, the reason if it was not accepted, and the rule of the operator's that decided about it. The scope's timer
// "sink_seconds" records how long the sink takes per batch, in seconds.
func NewProcessor(pipeline *Pipeline, sink Sink, ledger *Ledger, log *zap.Logger, scope tally.Scope) Processor {
	return &processor{pipeline: pipeline, sink: sink, ledger: ledger, log: log, latency: scope.Timer("sink_seconds")}
}

// usualStages is the number of settlements up to which a batch needs no memory of its own for them.
const usualStages = 8

func (p *processor) Process(ctx context.Context, batch *Batch) {
	var room [usualStages]Settlement
	settlements := p.pipeline.Run(ctx, batch, room[:0])
	if batch.Pending() > 0 {
		p.write(ctx, batch)
	}
	batch.conclude()
	p.ledger.Enter(batch)
	if ctx.Done() != nil {
		ctx = context.WithoutCancel(ctx)
	}
	for i := len(settlements) - 1; i >= 0; i-- {
		settlements[i].run(ctx, batch)
	}
	if p.log.Core().Enabled(zapcore.DebugLevel) {
		p.explain(batch)
	}
}

var errUnsettled = Errorf(Internal, "the event was left without an outcome")

// write hands the batch to the sink. If the sink panics, Process fails the events that the sink has left undecided.
func (p *processor) write(ctx context.Context, batch *Batch) {
	defer func() {
		if caught := panics.Caught(recover()); caught != nil {
			panics.Log(p.log, "the sink", caught, zap.String("request_id", strings.Clone(batch.RequestID)))
		}
	}()
	start := time.Now()
	p.sink.Write(ctx, batch)
	p.latency.Record(time.Since(start))
}

// explain logs the outcome of every event.
func (p *processor) explain(batch *Batch) {
	for i := range batch.Events {
		event := &batch.Events[i]
		fields := []zap.Field{
			zap.String("event", strings.Clone(event.Name)),
			zap.String("distinct_id", strings.Clone(event.DistinctID)),
			zap.String("token", strings.Clone(batch.Token)),
			zap.Stringer("event_id", event.UUID),
			zap.String("request_id", strings.Clone(batch.RequestID)),
		}
		if event.Outcome.Reason != "" {
			fields = append(fields, zap.String("reason", string(event.Outcome.Reason)))
		}
		if rule := cmp.Or(event.Outcome.Rule, event.Routing.Rule); rule != "" {
			fields = append(fields, zap.String("rule", rule))
		}
		if batch.TraceParent != "" {
			fields = append(fields, zap.String("traceparent", strings.Clone(batch.TraceParent)))
		}
		p.log.Debug("event "+event.Outcome.State.String(), append(fields, zap.Error(event.Outcome.Err))...)
	}
}
