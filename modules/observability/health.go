package observability

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

// reportTimeout is the time that all checks together get. A probe that hangs tells an operator less than one that
// fails.
const reportTimeout = time.Second

// Health knows whether the service is ready for traffic: the service has started, is not stopping, and every Check
// passes or is overridden. It is safe for concurrent use.
type Health struct {
	log       *zap.Logger
	checks    []Check
	overrides []Override
	phase     atomic.Int32
}

// The phases of a process, in their order. No phase leads back to an earlier one.
const (
	phaseStarting int32 = iota
	phaseRunning
	phaseStopping
)

var phaseNames = [...]string{"starting", "running", "stopping"}

// Report is the state of readiness at one moment, for an operator.
type Report struct {
	Ready bool `json:"ready"`
	// Phase is "starting", "running" or "stopping".
	Phase string `json:"phase"`
	// Checks are in the order of their names.
	Checks []CheckReport `json:"checks"`
}

// CheckReport is the result of one Check.
type CheckReport struct {
	Name  string `json:"name"`
	Ready bool   `json:"ready"`
	// Reason says what is missing if the check is not ready.
	Reason string `json:"reason,omitempty"`
	// Overridden says why the service is ready although the check is not.
	Overridden string `json:"overridden,omitempty"`
}

// Missing reports whether the check keeps the service from being ready.
func (r CheckReport) Missing() bool { return !r.Ready && r.Overridden == "" }

// NewHealth returns the health of a process that is starting. Two checks with the same name are an error. An override
// of a check that does not exist is allowed.
func NewHealth(overrides []Override, checks ...Check) (*Health, error) {
	ordered := slices.Clone(checks)
	slices.SortFunc(ordered, func(a, b Check) int { return cmp.Compare(a.Name, b.Name) })
	var faults []error
	for i := 1; i < len(ordered); i++ {
		if ordered[i].Name == ordered[i-1].Name {
			faults = append(faults, fmt.Errorf("two health checks are named %q: rename one", ordered[i].Name))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return &Health{log: zap.NewNop(), checks: ordered, overrides: overrides}, nil
}

// LogTo sets the logger for the panics of checks and overrides. It is called before the health is used.
func (h *Health) LogTo(log *zap.Logger) { h.log = log }

// SetStarted says that the service takes traffic. It is called once, when the last part has started. After SetStopping
// it does nothing.
func (h *Health) SetStarted() { h.phase.CompareAndSwap(phaseStarting, phaseRunning) }

// SetStopping says that the service is going to stop, so that a load balancer sends no more traffic. It is final.
func (h *Health) SetStopping() { h.phase.Store(phaseStopping) }

// Ready returns nil if the service is ready, or an error that lists everything that is missing.
func (h *Health) Ready(ctx context.Context) error {
	report := h.Report(ctx)
	if report.Ready {
		return nil
	}
	var missing []error
	if report.Phase != phaseNames[phaseRunning] {
		missing = append(missing, fmt.Errorf("the service is %s", report.Phase))
	}
	for _, check := range report.Checks {
		if check.Missing() {
			missing = append(missing, fmt.Errorf("%s: %s", check.Name, check.Reason))
		}
	}
	return errors.Join(missing...)
}

// Report asks every check, one after the other, and returns the results. The checks get a context that ends after a
// second. A check that panics counts as failed. An override that panics does not count.
func (h *Health) Report(ctx context.Context) Report {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	phase := h.phase.Load()
	report := Report{
		Ready:  phase == phaseRunning,
		Phase:  phaseNames[phase],
		Checks: make([]CheckReport, len(h.checks)),
	}
	for i, check := range h.checks {
		result := CheckReport{Name: check.Name, Ready: true}
		err := panics.Try(h.log, "the health check "+check.Name, func() error { return check.Ready(ctx) })
		if err != nil {
			result.Ready, result.Reason = false, err.Error()
			result.Overridden = h.overridden(ctx, check.Name)
			report.Ready = report.Ready && !result.Missing()
		}
		report.Checks[i] = result
	}
	return report
}

// overridden returns the reason why the failure of the named check does not count, or "".
func (h *Health) overridden(ctx context.Context, name string) string {
	for _, override := range h.overrides {
		if override.Check == name {
			why := ""
			panics.Do(h.log, "the override of the health check "+name, func() { why = override.Why(ctx) })
			if why != "" {
				return why
			}
		}
	}
	return ""
}
