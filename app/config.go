package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencapture/capture/app/posthogenv"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

// Config is the section "app".
type Config struct {
	StartTimeout time.Duration `key:"start_timeout" doc:"How long all modules together may take to start."`
	StopTimeout  time.Duration `key:"stop_timeout" doc:"How long all modules together may take to stop. It must be at least the sum of the times that the modules reserve for their stops, and less than the orchestrator's grace period."`

	MemoryLimit configs.ByteSize `key:"memory_limit" doc:"Memory that the process should take at most: the Go runtime's limit, which makes it collect garbage sooner. 0: 90% of the limit of the cgroup, or without one what the modules may hold (transport.max_in_flight, delivery.buffer, usage.max_tokens and others) and 40MiB. The variable GOMEMLIMIT goes before this key."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{StartTimeout: 20 * time.Second, StopTimeout: 45 * time.Second}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(c.StartTimeout > 0, "start_timeout", "must be positive, got %s", c.StartTimeout)
	faults.Check(c.StopTimeout > 0, "stop_timeout", "must be positive, got %s", c.StopTimeout)
	faults.Check(c.MemoryLimit == 0 || c.MemoryLimit >= 64*configs.MiB, "memory_limit",
		"must be 0 or at least 64MiB, got %s", c.MemoryLimit)
	return faults.Err()
}

// section is the name of the app's own section.
const section = "app"

// sections are the app's own section and those of the modules.
func sections(modules []module.Module) []configs.Section {
	all := []configs.Section{{Name: section, Defaults: DefaultConfig()}}
	for _, m := range modules {
		all = append(all, configs.Section{Name: m.Name, Defaults: m.Config})
	}
	return all
}

// Load reads and checks the configuration of a build of these modules, with the app's own section, just as Build does.
func Load(modules []module.Module, source configs.Source) (*configs.Set, error) {
	source.Elsewhere = posthogenv.Whose
	return configs.Load(sections(modules), source, rules(modules)...)
}

// inspect is Load that returns the configuration also if it has faults; see configs.Inspect.
func inspect(modules []module.Module, source configs.Source, probes ...configs.Rule) (*configs.Set, error) {
	source.Elsewhere = posthogenv.Whose
	return configs.Inspect(sections(modules), source, append(rules(modules), probes...)...)
}

func rules(modules []module.Module) []configs.Rule {
	rules := []configs.Rule{budgetsFit(modules), addressesDiffer(modules), memoryFits(modules)}
	for _, m := range modules {
		rules = append(rules, m.Rules...)
	}
	return rules
}

// probes look at the machine that the service is to run on.
func probes(modules []module.Module) []configs.Rule {
	probes := []configs.Rule{addressesExist(modules)}
	for _, m := range modules {
		probes = append(probes, m.Probes...)
	}
	return probes
}

// budgetsFit checks that the time that the modules reserve for their hooks fits into the app's timeouts.
func budgetsFit(modules []module.Module) configs.Rule {
	return func(set *configs.Set) error {
		var start, stop budget
		for _, m := range modules {
			config := set.Section(m.Name)
			if b, ok := config.(configs.StartBudgeter); ok {
				start.add(m.Name, b.StartBudget())
			}
			if b, ok := config.(configs.StopBudgeter); ok {
				stop.add(m.Name, b.StopBudget())
			}
		}
		own := set.Section(section).(Config)
		var faults configs.Faults
		start.check(&faults, "start", own.StartTimeout)
		stop.check(&faults, "stop", own.StopTimeout)
		return faults.Err()
	}
}

// budget is the time that the modules reserve for starting or for stopping.
type budget struct {
	total  time.Duration
	shares []string
}

func (b *budget) add(module string, share time.Duration) {
	if share > 0 {
		b.total += share
		b.shares = append(b.shares, fmt.Sprintf("%s %s", module, share))
	}
}

func (b *budget) check(faults *configs.Faults, verb string, timeout time.Duration) {
	faults.Check(b.total <= timeout, section+"."+verb+"_timeout",
		"is %s, but the modules reserve %s to %s (%s): raise it, or lower theirs",
		timeout, b.total, verb, strings.Join(b.shares, ", "))
}

// bound is an address that a module listens on, by its key.
type bound struct{ key, host, port string }

// listens returns the addresses that the modules listen on.
func listens(modules []module.Module, set *configs.Set) (all []bound) {
	for _, m := range modules {
		listener, ok := set.Section(m.Name).(configs.Listener)
		if !ok {
			continue
		}
		listens := listener.Listens(set)
		for _, key := range slices.Sorted(maps.Keys(listens)) {
			if host, port, err := net.SplitHostPort(listens[key]); err == nil {
				all = append(all, bound{m.Name + "." + key, host, port})
			}
		}
	}
	return all
}

// addressesDiffer checks that no two modules listen on the same address.
func addressesDiffer(modules []module.Module) configs.Rule {
	return func(set *configs.Set) error {
		var faults configs.Faults
		all := listens(modules, set)
		for i, one := range all {
			for _, other := range all[:i] {
				faults.Check(one.port == "0" || one.port != other.port || !overlap(one.host, other.host), one.key,
					"is on port %s, which %s takes as well: give it another port", one.port, other.key)
			}
		}
		return faults.Err()
	}
}

// addressesExist checks that this machine has the addresses that the modules listen on. It takes no port of theirs,
// which the running service may have, and looks up no names.
func addressesExist(modules []module.Module) configs.Rule {
	return func(set *configs.Set) error {
		var faults configs.Faults
		for _, one := range listens(modules, set) {
			if _, err := netip.ParseAddr(one.host); err != nil {
				continue
			}
			address := net.JoinHostPort(one.host, "0")
			listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
			if err != nil {
				var system *os.SyscallError
				if errors.As(err, &system) {
					err = system
				}
				faults.Addf(one.key, "this machine cannot listen on %s: %s", one.host, err)
				continue
			}
			_ = listener.Close()
		}
		return faults.Err()
	}
}

// overlap reports whether two hosts may be the same address of this machine.
func overlap(a, b string) bool {
	canonical := func(host string) string {
		ip := net.ParseIP(host)
		switch {
		case host == "" || ip.IsUnspecified():
			return ""
		case host == "localhost" || ip.IsLoopback():
			return "loopback"
		default:
			return host
		}
	}
	a, b = canonical(a), canonical(b)
	return a == b || a == "" || b == ""
}
