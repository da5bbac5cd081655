package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/uber-go/tally/v4"
)

// Phase orders stages. Any number is allowed; these are the ones that the design names.
type Phase int

// The named phases, in the order in which an event meets them.
const (
	PhaseAuth     Phase = 100
	PhaseValidate Phase = 200
	PhaseDedup    Phase = 300
	PhaseQuota    Phase = 400
	PhasePlugins  Phase = 500
	PhaseRoute    Phase = 600
)

// Stage judges a whole batch at a time, so that it costs at most one store round trip per request. It marks events (Drop,
// Reject, Fail) and never removes one; it leaves alone what has an outcome already. An error means that the stage could not
// judge: every event still pending then fails. Process must be safe for concurrent use.
type Stage interface {
	Phase() Phase
	Name() string
	Process(ctx context.Context, batch *Batch) error
}

// Pipeline is the stages of a build, in the order of (Phase, Name).
type Pipeline struct{ stages []timedStage }

// NewPipeline orders the stages. Two stages with the same phase and name are an error. How long each stage takes per batch,
// in seconds, is recorded in the scope's timer "stage_seconds", tagged with the stage's name.
func NewPipeline(scope tally.Scope, stages ...Stage) (*Pipeline, error) {
	ordered := slices.Clone(stages)
	slices.SortStableFunc(ordered, func(a, b Stage) int {
		return cmp.Or(cmp.Compare(a.Phase(), b.Phase()), cmp.Compare(a.Name(), b.Name()))
	})
	var faults []error
	for i := 1; i < len(ordered); i++ {
		a, b := ordered[i-1], ordered[i]
		if a.Phase() == b.Phase() && a.Name() == b.Name() {
			faults = append(faults, fmt.Errorf("two stages are named %q in phase %d: rename one or leave it out", a.Name(), a.Phase()))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	pipeline := &Pipeline{stages: make([]timedStage, len(ordered))}
	for i, stage := range ordered {
		tagged := scope.Tagged(map[string]string{"stage": stage.Name()})
		pipeline.stages[i] = timedStage{Stage: stage, latency: tagged.Timer("stage_seconds")}
	}
	return pipeline, nil
}

// Names lists the stages in their order.
func (p *Pipeline) Names() []string {
	names := make([]string, len(p.stages))
	for i, stage := range p.stages {
		names[i] = stage.Name()
	}
	return names
}

// Run passes the batch through the stages until no event is pending.
func (p *Pipeline) Run(ctx context.Context, batch *Batch) {
	for _, stage := range p.stages {
		if batch.Pending() == 0 {
			return
		}
		if err := stage.Process(ctx, batch); err != nil {
			batch.FailPending(ReasonStage, Errorf(CodeOf(err), "stage %s: %w", stage.Name(), err))
			return
		}
	}
}

// timedStage records how long its stage takes. The timer is resolved at start, because looking one up costs more than many a
// stage does.
type timedStage struct {
	Stage
	latency tally.Timer
}

func (s timedStage) Process(ctx context.Context, batch *Batch) error {
	start := time.Now()
	err := s.Stage.Process(ctx, batch)
	s.latency.Record(time.Since(start))
	return err
}
