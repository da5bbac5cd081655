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

// Phase orders stages. Any number is allowed; these are the ones that the design names.
type Phase int

// The named phases, in the order in which an event meets them.
const (
	// PhaseObserve is for what only looks: its settlement is the last one.
	PhaseObserve  Phase = 0
	PhaseAuth     Phase = 100
	PhaseValidate Phase = 200
	PhaseDedup    Phase = 300
	PhaseQuota    Phase = 400
	PhasePlugins  Phase = 500
	PhaseRoute    Phase = 600
)

// Stage judges a whole batch at a time, so that it costs at most one store round trip per request. It marks
// events (Drop, Reject, Fail) and never removes one; it leaves alone what has an outcome already, and that may be
// all events. An error means that the stage could not judge: every event still pending then fails. Process must
// be safe for concurrent use.
//
// The Settle that a stage returns, if any, is called exactly once, when all events of the batch have their outcomes:
// also if the stage returned an error as well.
type Stage interface {
	Phase() Phase
	Name() string
	Process(ctx context.Context, batch *Batch) (Settle, error)
}

// Settle is what a stage does once it is known how its events have ended, such as giving back what it had reserved for
// those that failed. Settlements run in the reverse order of the stages, before the client is answered, whatever
// happened in between: a stage or sink that failed or panicked, or a client that has left, which ctx does not tell. A
// settlement changes no outcome, and keeps nothing of the batch.
type Settle func(ctx context.Context, batch *Batch)

// Pipeline is the stages of a build, in the order of (Phase, Name).
type Pipeline struct{ stages []timedStage }

// NewPipeline orders the stages. Two stages with the same phase and name are an error. How long each stage takes per
// batch, in seconds, is recorded in the scope's timer "stage_seconds", tagged with the stage's name.
func NewPipeline(log *zap.Logger, scope tally.Scope, stages ...Stage) (*Pipeline, error) {
	ordered := slices.Clone(stages)
	slices.SortStableFunc(ordered, func(a, b Stage) int {
		return cmp.Or(cmp.Compare(a.Phase(), b.Phase()), cmp.Compare(a.Name(), b.Name()))
	})
	var faults []error
	for i := 1; i < len(ordered); i++ {
		a, b := ordered[i-1], ordered[i]
		if a.Phase() == b.Phase() && a.Name() == b.Name() {
			faults = append(faults, fmt.Errorf("two stages are named %q in phase %d: rename one or leave it out",
				a.Name(), a.Phase()))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	pipeline := &Pipeline{stages: make([]timedStage, len(ordered))}
	for i, stage := range ordered {
		tagged := scope.Tagged(map[string]string{"stage": stage.Name()})
		pipeline.stages[i] = timedStage{Stage: stage, log: log, latency: tagged.Timer("stage_seconds")}
	}
	return pipeline, nil
}

// Run passes the batch through the stages, and returns the settlements that they ask for, appended to settlements. It
// ends with the first stage that fails or panics: the events that are pending then have failed.
func (p *Pipeline) Run(ctx context.Context, batch *Batch, settlements []Settlement) []Settlement {
	for i := range p.stages {
		stage := &p.stages[i]
		settle, err := stage.process(ctx, batch)
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

// Settlement is what a stage has asked to be done when its batch has ended.
type Settlement struct {
	stage  *timedStage
	settle Settle
}

// timedStage records how long its stage takes. The timer is resolved at start, because looking one up costs
// more than many a stage does.
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
