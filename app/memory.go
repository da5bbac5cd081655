package app

import (
	"fmt"
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

const (
	// baseMemory is what the process takes beside what clients make it hold: the runtime, metrics, buffers of
	// connections to Kafka, idle connections.
	baseMemory = 40 * int64(configs.MiB)
	// cgroupShare is the part of a cgroup's limit that is for the runtime's memory. The rest is for what the runtime
	// does not count, such as the program itself.
	cgroupShare = 0.9
)

// given is a memory limit that comes from outside of the configuration, and from where. Limit 0 is none.
type given struct {
	limit int64
	from  string
}

// fromEnvironment names the limit that the runtime itself has read.
const fromEnvironment = "GOMEMLIMIT"

// givenMemory looks for a limit that was set before the configuration is known: GOMEMLIMIT, which the runtime has read,
// or the cgroup of the process.
func givenMemory() given {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		return given{limit, fromEnvironment}
	}
	limit, err := memlimit.FromCgroup()
	if err != nil || limit == 0 || limit >= math.MaxInt64/2 {
		return given{} // No cgroup, or one without a limit.
	}
	return given{int64(float64(limit) * cgroupShare), fmt.Sprintf("%d%% of the cgroup's %s",
		int(cgroupShare*100), configs.ByteSize(limit).Approx())}
}

// memoryPlan is how much memory the process may take, and what for.
type memoryPlan struct {
	// limit is the runtime's memory limit, in bytes, and from says why it is so. 0: the runtime has none.
	limit int64
	from  string
	// outer is the limit that does not depend on the modules: the modules divide it among them. 0: there is none.
	outer int64
	// budgets is what the modules may hold because of what clients send. unbounded is set if a module has no bound; it
	// is not among the budgets.
	budgets   int64
	unbounded bool
}

// planMemory divides the memory. GOMEMLIMIT goes before app.memory_limit, and that before the cgroup. Without any of
// them the modules' budgets make the limit.
func planMemory(modules []module.Module, set *configs.Set, outside given) memoryPlan {
	own := set.Section(section).(Config)
	p := memoryPlan{outer: outside.limit, from: outside.from}
	if own.MemoryLimit > 0 && outside.from != fromEnvironment {
		p.outer, p.from = int64(own.MemoryLimit), section+".memory_limit"
	}
	for _, m := range modules {
		if b, ok := set.Section(m.Name).(configs.MemoryBudgeter); ok {
			if share := b.MemoryBudget(set, p.outer); share == configs.Unbounded {
				p.unbounded = true
			} else {
				p.budgets += share
			}
		}
	}
	p.limit = p.outer
	if p.outer == 0 && p.budgets > 0 && !p.unbounded {
		p.limit, p.from = p.budgets+baseMemory, "the modules' budgets"
	}
	return p
}

// String tells a person what the limit is. It is empty for a build without a module that has a budget.
func (p memoryPlan) String() string {
	switch {
	case p.limit == 0 && p.unbounded:
		return "no limit, since the embedded broker keeps its messages in memory"
	case p.limit == 0:
		return ""
	default:
		return fmt.Sprintf("limit %s (%s), of which clients can fill %s", configs.ByteSize(p.limit).Approx(), p.from,
			configs.ByteSize(p.budgets).Approx())
	}
}

// fits reports whether the modules' budgets fit into the limit.
func (p memoryPlan) fits() bool {
	return p.outer == 0 || p.budgets+baseMemory <= p.outer
}

// apply gives the runtime the limit. It warns of budgets that do not fit.
func (p memoryPlan) apply(log *zap.Logger) {
	if p.limit > 0 {
		debug.SetMemoryLimit(p.limit)
	}
	if !p.fits() {
		log.Warn("the memory limit is less than what clients can fill: lower transport.max_in_flight or "+
			"delivery.buffer, or give the process more memory",
			zap.Stringer("limit", configs.ByteSize(p.limit)), zap.String("from", p.from),
			zap.Stringer("budgets", configs.ByteSize(p.budgets)), zap.Stringer("base", configs.ByteSize(baseMemory)))
	}
}

// memoryFits checks the modules' budgets against app.memory_limit. Whether they fit into the limit of the cgroup or
// into GOMEMLIMIT depends on where the service runs, so that is a warning at start.
func memoryFits(modules []module.Module) configs.Rule {
	return func(set *configs.Set) error {
		limit := set.Section(section).(Config).MemoryLimit
		if limit == 0 {
			return nil
		}
		plan := planMemory(modules, set, given{})
		var faults configs.Faults
		faults.Check(plan.fits(), section+".memory_limit",
			"is %s, but clients can fill %s (transport.max_in_flight, delivery.buffer) and the process itself needs "+
				"%s: raise it, or lower theirs", limit, configs.ByteSize(plan.budgets), configs.ByteSize(baseMemory))
		return faults.Err()
	}
}
