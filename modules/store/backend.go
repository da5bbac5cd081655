package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

// The names of the backends.
const (
	// Local is modules/store/local: the state of one node, in its process.
	Local = "local"
	// InRedis is modules/store/redis: the state of any number of nodes.
	InRedis = "redis"
)

// Backend is a kind of store. A build names those that it includes.
type Backend struct {
	// Name is one of the names above.
	Name string
	// New makes the store. It opens no connection and no file. An error is a mistake in the configuration.
	New func(Parts) (Running, error)
	// NewPostHog makes the reader of PostHog's Redis. It is nil in a backend that has none. It opens no connection.
	NewPostHog func(Parts) (RunningPostHog, error)
	// Metrics describes the metrics that the store makes.
	Metrics module.Metrics
	// Probes look at the machine, for "capture config validate", while the backend is the one in use.
	Probes []configs.Rule
}

// Parts is what a backend makes its store with.
type Parts struct {
	// Config is the section that the service starts with. Live has what may change later.
	Config Config
	Live   *configs.Live
	Log    *zap.Logger
	// Scope carries the name of the module.
	Scope tally.Scope
}

// Running is a store that has to be started and stopped.
type Running interface {
	Store
	// Start readies the store. That Redis is away is no error: the store says so in the log and in its Status.
	Start(ctx context.Context) error
	// Stop tells the store what it has not been told yet, until ctx is over, and closes it. Its error says what is
	// lost.
	Stop(ctx context.Context) error
	// Status tells how the store is. It asks nobody and does not block.
	Status() Status
}

// RunningPostHog is a reader of PostHog's Redis that has to be stopped.
type RunningPostHog interface {
	PostHog
	Stop(ctx context.Context) error
	Status() PartStatus
}

// Status tells how a store is, for an operator.
type Status struct {
	// Backend is the name of the backend. Where tells where the state is.
	Backend string `json:"backend"`
	Where   string `json:"where"`
	// Reachable says that the store, every part of it, answered when it was last asked.
	Reachable bool `json:"reachable"`
	// Parts are the servers that the node has asked.
	Parts []PartStatus `json:"parts,omitempty"`
	// Waiting is how many digests have been settled and are not in the store yet, GivenUp how many never got there.
	Waiting int64 `json:"settlements_waiting"`
	GivenUp int64 `json:"settlements_given_up"`
	// PostHog is the Redis of PostHog, if one is configured.
	PostHog *PartStatus `json:"posthog,omitempty"`
}

// PartStatus tells how one server is.
type PartStatus struct {
	Address   string `json:"address"`
	Reachable bool   `json:"reachable"`
	// BreakerOpenSince is set while the breaker is open: calls fail at once.
	BreakerOpenSince *time.Time `json:"breaker_open_since,omitempty"`
	// LastError is the last error, and LastErrorAt when it was.
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
	// LatencyMS is how long the last round trip took, in milliseconds.
	LatencyMS float64 `json:"latency_ms"`
}

// Trouble returns what is wrong with the store, or "".
func (s Status) Trouble() string {
	if s.Reachable {
		return ""
	}
	for _, part := range s.Parts {
		if !part.Reachable {
			return strings.TrimSuffix(fmt.Sprintf("%s does not answer: %s", part.Address, part.LastError), ": ")
		}
	}
	return s.Where + " does not answer"
}

// Degraded returns what is wrong with a part of a store that answers all the same, or "". The store of a single node
// goes on in memory while its directory takes nothing.
func (s Status) Degraded() string {
	for _, part := range s.Parts {
		if s.Reachable && !part.Reachable {
			return fmt.Sprintf("the state is in memory alone, and a restart forgets it: %s: %s", part.Address,
				part.LastError)
		}
	}
	return ""
}

// User is a feature that uses the store.
type User struct {
	// Name is the name of the feature's module.
	Name string
	// Closed reports whether the feature fails events at present when the store does not answer (on_store_failure).
	Closed func() bool
}

// inUse returns the name of the backend that the configuration asks for.
func (c Config) inUse() string {
	if len(c.Redis.Addrs) > 0 {
		return InRedis
	}
	return Local
}

// joined is a store with another PostHog than its own.
type joined struct {
	Running
	PostHog RunningPostHog
}

// HasPostHog implements PostHog.
func (j joined) HasPostHog() bool { return j.PostHog.HasPostHog() }

// SortedSet implements PostHog.
func (j joined) SortedSet(ctx context.Context, key string, now time.Time) (map[string]time.Time, error) {
	return j.PostHog.SortedSet(ctx, key, now)
}

// Members implements PostHog.
func (j joined) Members(ctx context.Context, key string) ([]string, error) {
	return j.PostHog.Members(ctx, key)
}

// Strings implements PostHog.
func (j joined) Strings(ctx context.Context, keys ...string) ([]string, error) {
	return j.PostHog.Strings(ctx, keys...)
}

// Stop implements Running.
func (j joined) Stop(ctx context.Context) error {
	return errors.Join(j.Running.Stop(ctx), j.PostHog.Stop(ctx))
}

// Status implements Running.
func (j joined) Status() Status {
	status, posthog := j.Running.Status(), j.PostHog.Status()
	status.PostHog = &posthog
	return status
}

// Open makes the store that the configuration asks for, by one of the backends, without starting it.
func Open(parts Parts, backends ...Backend) (Running, error) {
	backend, reader, err := choose(parts.Config, backends)
	if err != nil {
		return nil, err
	}
	running, err := backend.New(parts)
	if err != nil || reader.NewPostHog == nil {
		return running, err
	}
	posthog, err := reader.NewPostHog(parts)
	return joined{running, posthog}, err
}

// choose returns the backend that the configuration asks for and, if it asks for one, the backend that reads PostHog's
// Redis. Its error names what the build lacks.
func choose(c Config, backends []Backend) (chosen, reader Backend, err error) {
	var names []string
	found := false
	for _, backend := range backends {
		if backend.Name == c.inUse() {
			chosen, found = backend, true
		}
		if backend.NewPostHog != nil && len(c.PostHog.Addrs) > 0 {
			reader = backend
		}
		names = append(names, backend.Name)
	}
	included := strings.Join(names, ", ")
	if included == "" {
		included = "none"
	}
	var faults configs.Faults
	const lacks = "this build has no backend for Redis (it has: %s): leave the key empty, or give store.Module the " +
		"Backend of modules/store/redis"
	switch {
	case found:
	case c.inUse() == InRedis:
		faults.Addf("store.redis.addrs", lacks, included)
	default:
		faults.Addf("store.redis.addrs", "must not be empty: this build has no backend for a single node (it has: "+
			"%s); or give store.Module the Backend of modules/store/local", included)
	}
	faults.Check(len(c.PostHog.Addrs) == 0 || reader.NewPostHog != nil, "store.posthog.addrs", lacks, included)
	return chosen, reader, faults.Err()
}
