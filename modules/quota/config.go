package quota

import (
	"time"
	_ "time/tzdata" // the image of the service has no time zones of its own

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

// Config is the section "quota".
type Config struct {
	Quotas    []string `key:"quotas" live:"true" doc:"What a project may send by the calendar, each such as events=1000000/month: a resource (events, recordings, exceptions, ai, logs, surveys), a number, and minute, hour, day or month. Events over a quota are dropped. For projects without limits of their own."`
	Rates     []string `key:"rates" live:"true" doc:"How fast a project may send, each such as events=100/s burst=5000: a resource, a number, s, m or h, and how many events pass at once (without it, what passes in 10 s). For projects without limits of their own."`
	UserRates []string `key:"user_rates" live:"true" doc:"How fast each distinct_id of a project may send, written as rates are. For projects without limits of their own."`
	Over      string   `key:"over" live:"true" doc:"What becomes of events over a rate: overflow (they go to the overflow topic of their lane; lanes without one keep them), drop, or reject (the client is asked to send them again later)."`
	Whole     bool     `key:"whole" live:"true" doc:"The events of a request pass a limit only together. Otherwise as many of them pass as there is room for."`
	Zone      string   `key:"zone" live:"true" doc:"Time zone whose calendar the quotas follow, such as Europe/Berlin."`

	OnStoreFailure string `key:"on_store_failure" live:"true" doc:"What becomes of events that the node holds no share for while the store does not answer: open (they pass, uncounted) or closed (they fail, and the client sends them again later)."`
	PostHog        bool   `key:"posthog" live:"true" doc:"Also drop what PostHog's own application has put over its limits, while store.posthog is configured."`

	Dir         string        `key:"dir" doc:"Directory of the file in which the node notes what it holds of the limits, so that the next process goes on with it. It has to be on a local disk, and one process at a time uses it. Without it, what a killed process held counts as spent."`
	MaxAccounts int           `key:"max_accounts" doc:"How many limits of projects the node keeps account of at a time. Each takes up to 1 KiB of memory, and 128 bytes in the file. Beyond that, the ones that have rested longest make room."`
	MaxUsers    int           `key:"max_users" doc:"How many users that send much the node keeps account of at a time, while there are user_rates. Each takes 1 KiB of memory. Beyond that, some that have rested make room: the store has their counts."`
	StopTimeout time.Duration `key:"stop_timeout" doc:"How long a stop may take to give back to the store what the node holds."`
}

// The values of on_store_failure.
const (
	failOpen   = "open"
	failClosed = "closed"
)

// DefaultConfig returns the defaults of the section: no limits.
func DefaultConfig() Config {
	return Config{
		Over: events.OverOverflow.String(), Zone: "UTC", OnStoreFailure: failOpen, PostHog: true,
		Dir: "./data/quota", MaxAccounts: 16384, MaxUsers: 4096, StopTimeout: 2 * time.Second,
	}
}

// The bounds of max_accounts.
const (
	minAccounts = 64
	mostCount   = 4 << 20
)

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	_ = c.limits(&faults)
	faults.Check(c.OnStoreFailure == failOpen || c.OnStoreFailure == failClosed, "on_store_failure",
		"must be %s or %s, got %q", failOpen, failClosed, c.OnStoreFailure)
	faults.Check(c.Dir != "", "dir", "must name a directory")
	faults.Check(c.MaxAccounts >= minAccounts && c.MaxAccounts <= mostCount, "max_accounts",
		"must be from %d to %d, got %d", minAccounts, mostCount, c.MaxAccounts)
	faults.Check(c.MaxUsers >= shardCount && c.MaxUsers <= mostCount, "max_users", "must be from %d to %d, got %d",
		shardCount, mostCount, c.MaxUsers)
	faults.Check(c.StopTimeout > 0, "stop_timeout", "must be positive, got %s", c.StopTimeout)
	return faults.Err()
}

// limits returns the limits of all projects that have none of their own. It records what is wrong with them.
func (c Config) limits(faults *configs.Faults) *events.Limits {
	limits := &events.Limits{Whole: c.Whole}
	for i, text := range c.Quotas {
		quota, err := events.ParseQuota(text)
		faults.Check(err == nil, "quotas", "entry %d: %v", i+1, err)
		limits.Quotas = append(limits.Quotas, quota)
	}
	limits.Rates = readRates(faults, "rates", c.Rates)
	limits.UserRates = readRates(faults, "user_rates", c.UserRates)
	var err error
	if limits.Over, err = events.ParseOver(c.Over); err != nil {
		faults.Addf("over", "%v", err)
	}
	if limits.Zone, err = time.LoadLocation(c.Zone); err != nil || c.Zone == "Local" {
		faults.Addf("zone", "must be the name of a time zone such as UTC or Europe/Berlin, got %q", c.Zone)
	}
	return limits
}

// readRates reads the rates of a key, of which a resource has one at most.
func readRates(faults *configs.Faults, key string, texts []string) (rates []events.Rate) {
	seen := map[events.Resource]bool{}
	for i, text := range texts {
		rate, err := events.ParseRate(text)
		if err != nil {
			faults.Addf(key, "entry %d: %v", i+1, err)
			continue
		}
		faults.Check(!seen[rate.Resource], key, "entry %d is the second one for %s: a resource has one rate", i+1,
			rate.Resource)
		seen[rate.Resource] = true
		rates = append(rates, rate)
	}
	return rates
}

// StopBudget is the longest time that a stop takes.
func (c Config) StopBudget() time.Duration { return c.StopTimeout }

// accountMemory is about what an account takes in memory, in bytes, with its part of what is kept of its token.
const accountMemory = 1 << 10

// MemoryBudget implements configs.MemoryBudgeter. Strangers can make accounts where auth.mode is open and there are
// limits for all projects.
func (c Config) MemoryBudget(*configs.Set, int64) int64 {
	return int64(c.MaxAccounts)*accountMemory + int64(c.MaxUsers)*userMemory + sketchMemory
}

// dirIsUsable is a probe of the directory.
func dirIsUsable(set *configs.Set) error {
	own, err := configs.SectionOf[Config](set)
	if err != nil {
		return err
	}
	var faults configs.Faults
	faults.CheckDir("quota.dir", own.Dir, "what a killed process held of the limits would count as spent")
	return faults.Err()
}

// settings are what a batch is judged by.
type settings struct {
	limits  *events.Limits
	plan    *plan
	open    bool
	posthog bool
}

func newSettings(c Config) (*settings, error) {
	var faults configs.Faults
	limits := c.limits(&faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return &settings{
		limits: limits, plan: newPlan(limits), open: c.OnStoreFailure == failOpen, posthog: c.PostHog,
	}, nil
}
