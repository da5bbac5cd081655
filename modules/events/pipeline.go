package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

// Phase orders stages. Any number is allowed. The constants are the phases of the design.
type Phase int

// The named phases, in the order in which an event meets them.
const (
	// PhaseCount is for stages that have to see every batch. No stage runs before them and fails, so nothing keeps a
	// batch from them. Their settlements run last of all.
	PhaseCount Phase = -100
	// PhaseObserve is for stages that only look. Their settlements run after those of the stages that judge.
	PhaseObserve  Phase = 0
	PhaseAuth     Phase = 100
	PhaseValidate Phase = 200
	PhaseDedup    Phase = 300
	PhaseQuota    Phase = 400
	PhasePlugins  Phase = 500
	PhaseRoute    Phase = 600
)

// Stage judges a whole batch at a time, so that a request costs at most one round trip to a store. A stage marks events
// (Drop, Reject, Fail) and never removes one. It leaves alone the events that have an outcome already; these may be all
// of the batch. An error means that the stage could not judge the batch: every pending event then fails. Process must
// be safe for concurrent use.
//
// The Settle that Process returns, if any, is called exactly once, when all events of the batch have their outcomes. It
// is called even if Process returned an error beside it.
type Stage interface {
	Phase() Phase
	Name() string
	Process(ctx context.Context, batch *Batch) (Settle, error)
}

// Settle is what a stage does once the outcomes of its events are known, such as giving back the quota that it had
// reserved for events that failed. The Processor calls it before the client is answered, the last stage's first. It
// does so even after a stage or the sink has failed or panicked, or after the client has left; ctx does not end when
// the client leaves. A Settle changes no outcome and keeps nothing of the batch.
type Settle func(ctx context.Context, batch *Batch)

// Pipeline holds the stages of a build, in the order of (Phase, Name).
type Pipeline struct{ stages []timedStage }

// NewPipeline orders the stages. Two stages with the same phase and name are an error. The scope's timer
// "stage_seconds", tagged with the stage's name, records how long each stage takes per batch, in seconds.
func NewPipeline(log *zap.Logger, scope tally.Scope, stages ...Stage) (*Pipeline, error) {
	ordered, err := inOrder("stages", stages)
	if err != nil {
		return nil, err
	}
	pipeline := &Pipeline{stages: make([]timedStage, len(ordered))}
	for i, stage := range ordered {
		tagged := scope.Tagged(map[string]string{"stage": stage.Name()})
		pipeline.stages[i] = timedStage{Stage: stage, log: log, latency: tagged.Timer("stage_seconds")}
	}
	return pipeline, nil
}

// inOrder returns the parts in the order of (Phase, Name). Two parts with the same phase and name are an error. kind
// says in the error what the parts are.
func inOrder[T interface {
	Phase() Phase
	Name() string
}](kind string, parts []T) ([]T, error) {
	ordered := slices.Clone(parts)
	slices.SortStableFunc(ordered, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.Phase(), b.Phase()), cmp.Compare(a.Name(), b.Name()))
	})
	var faults []error
	for i := 1; i < len(ordered); i++ {
		if a, b := ordered[i-1], ordered[i]; a.Phase() == b.Phase() && a.Name() == b.Name() {
			faults = append(faults, fmt.Errorf("two %s are named %q in phase %d: rename one or leave it out",
				kind, a.Name(), a.Phase()))
		}
	}
	return ordered, errors.Join(faults...)
}

// Run passes the batch through the stages and appends the settlements that the stages return to settlements. It ends
// with the first stage that fails or panics, and fails the events that are pending then.
func (p *Pipeline) Run(ctx context.Context, batch *Batch, settlements []Settlement) []Settlement {
	for i := range p.stages {
		stage := &p.stages[i]
		all := batch.Events
		settle, err := stage.process(ctx, batch)
		if len(batch.Events) < len(all) {
			// Nobody knows what the stage has done to the other events. A client that hears of a success would not
			// send the removed ones again.
			batch.Events = all
			for i := range all {
				all[i].Outcome = Outcome{}
			}
			err = errRemoved
		}
		if settle != nil {
			settlements = append(settlements, Settlement{stage: stage, settle: settle})
		}
		if err != nil {
			batch.FailPending(ReasonStage, Errorf(CodeOf(err), "stage %s: %w", stage.Name(), err))
			break
		}
	}
	return settlements
}

// Settlement is a Settle with the stage that returned it.
type Settlement struct {
	stage  *timedStage
	settle Settle
}

// timedStage records how long its stage takes. The timer is resolved at start, because looking a timer up costs more
// than the work of many a stage.
type timedStage struct {
	Stage
	log     *zap.Logger
	latency tally.Timer
}

func (s *timedStage) process(ctx context.Context, batch *Batch) (settle Settle, err error) {
	defer func() {
		if caught := panics.Caught(recover()); caught != nil {
			panics.Log(s.log, "stage "+s.Name(), caught, zap.String("request_id", strings.Clone(batch.RequestID)))
			settle, err = nil, errPanicked
		}
	}()
	start := time.Now()
	settle, err = s.Process(ctx, batch)
	s.latency.Record(time.Since(start))
	return settle, err
}

var errRemoved = Errorf(Internal, "it removed events from the batch, which no stage may do")

var errPanicked = Errorf(Internal, "it panicked: see the log")

// run calls the settlement.
func (s *Settlement) run(ctx context.Context, batch *Batch) {
	defer func() {
		if caught := panics.Caught(recover()); caught != nil {
			panics.Log(s.stage.log, "settlement of stage "+s.stage.Name(), caught,
				zap.String("request_id", strings.Clone(batch.RequestID)))
		}
	}()
	s.settle(ctx, batch)
}
