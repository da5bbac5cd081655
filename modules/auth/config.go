package auth

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/private"
	"github.com/opencapture/capture/modules/store"
)

// Config is the section "auth".
type Config struct {
	Mode           string        `key:"mode" live:"true" doc:"Whose events are taken. open: those of every token, and of a project as the project says. known: the same, but requests with tokens of no project are counted, logged and warned of, to try out strict. strict: tokens of no project are answered 401."`
	Projects       configs.Files `key:"projects" live:"true" doc:"YAML files with projects: each token with the fields of its project (docs/projects.md). They go before those of the shared state. The service reads a file again when it changes, and refuses a file with a fault."`
	OnStoreFailure string        `key:"on_store_failure" live:"true" doc:"What becomes of requests whose project is not known to this node while the shared state does not answer. open: they are taken without a look at the project. closed: they are answered 503. Projects that the node knows stay as they are."`
	TTL            time.Duration `key:"ttl" live:"true" doc:"How long a project of the shared state is used before it is looked up again. A change by the service itself is in force at once, one by hand in Redis within this time."`
	UnknownTTL     time.Duration `key:"unknown_ttl" live:"true" doc:"How long a token of no project is not looked up again. A project that the service itself writes counts at once."`
	Timeout        time.Duration `key:"timeout" live:"true" doc:"How long a lookup of a project may take in all, and a request wait for it."`
	MaxProjects    int           `key:"max_projects" doc:"How many projects of the shared state are kept in memory. The one that was used the longest ago goes first."`
	MaxLookups     int           `key:"max_lookups" doc:"How many lookups a second requests with tokens that the node does not know may cause, so that a flood of invented tokens does not become one of lookups; a quarter of them for one client address. Requests beyond are treated as if the shared state did not answer, and answered 503 if auth.mode is strict."`
	Replica        string        `key:"replica" doc:"File that keeps the projects of the shared state that the node knows, so that it can start while Redis is away. It is written only with store.redis.addrs. Its directory is made if it is missing, and refused if other users can write to it. Empty: none."`
}

// The modes.
const (
	ModeOpen   = "open"
	ModeKnown  = "known"
	ModeStrict = "strict"
)

// DefaultConfig returns the defaults of the section.
func DefaultConfig() Config {
	return Config{
		Mode: ModeOpen, OnStoreFailure: store.FailOpen, TTL: time.Minute, UnknownTTL: 10 * time.Second,
		Timeout: 50 * time.Millisecond, MaxProjects: 100_000, MaxLookups: 1000, Replica: "./data/auth/projects.json",
	}
}

// The limits of settings.
const (
	shortestTTL = time.Second
	longestTTL  = 24 * time.Hour
	longestWait = time.Minute
	mostKept    = 10_000_000
	mostLookups = 1_000_000
	// stopTime is how long the last writing of the replica may take.
	stopTime = time.Second
)

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	modes := []string{ModeOpen, ModeKnown, ModeStrict}
	faults.Check(slices.Contains(modes, c.Mode), "mode", "must be one of %s, got %q", strings.Join(modes, ", "), c.Mode)
	_, found := parseFiles(c.Projects.All())
	for _, fault := range found {
		faults.Addf("projects", "%s", fault)
	}
	failures := []string{store.FailOpen, store.FailClosed}
	faults.Check(slices.Contains(failures, c.OnStoreFailure), "on_store_failure", "must be %s, got %q",
		strings.Join(failures, " or "), c.OnStoreFailure)
	within := func(key string, d, least, most time.Duration) {
		faults.Check(d >= least && d <= most, key, "must be from %s to %s, got %s", least, most, d)
	}
	within("ttl", c.TTL, shortestTTL, longestTTL)
	within("unknown_ttl", c.UnknownTTL, shortestTTL, longestTTL)
	within("timeout", c.Timeout, time.Millisecond, longestWait)
	faults.Check(c.MaxProjects >= 1 && c.MaxProjects <= mostKept, "max_projects", "must be from 1 to %d, got %d",
		mostKept, c.MaxProjects)
	faults.Check(c.MaxLookups >= 1 && c.MaxLookups <= mostLookups, "max_lookups", "must be from 1 to %d, got %d",
		mostLookups, c.MaxLookups)
	faults.Check(c.Replica == "" || filepath.Base(c.Replica) != "." && !strings.HasSuffix(c.Replica, "/"), "replica",
		"must be the path of a file, got %q", c.Replica)
	return faults.Err()
}

// StopBudget is how long the last writing of the replica may take.
func (c Config) StopBudget() time.Duration {
	if c.Replica == "" {
		return 0
	}
	return stopTime
}

// terms is the section of one configuration, with its projects parsed.
type terms struct {
	Config
	files map[string]*known
}

func newTerms(c Config) (*terms, error) {
	files, faults := parseFiles(c.Projects.All())
	if len(faults) > 0 {
		var all configs.Faults
		for _, fault := range faults {
			all.Addf("auth.projects", "%s", fault)
		}
		return nil, all.Err()
	}
	return &terms{Config: c, files: files}, nil
}

// closed reports whether requests fail that nobody can judge.
func (t *terms) closed() bool { return t.OnStoreFailure == store.FailClosed }

// replicaCanBeWritten checks that the directory of the replica can be used, if there will be a replica.
func replicaCanBeWritten(set *configs.Set) error {
	own, err := configs.SectionOf[Config](set)
	if err != nil {
		return err
	}
	of, err := configs.SectionOf[store.Config](set)
	if err != nil || len(of.Redis.Addrs) == 0 || own.Replica == "" {
		return nil //nolint:nilerr // the build reports that the module is missing
	}
	var faults configs.Faults
	dir := filepath.Dir(own.Replica)
	faults.CheckDir("auth.replica", dir, "the node could not start while Redis is away")
	if err := private.Check(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && faults.Err() == nil {
		faults.Addf("auth.replica", "%s", err)
	}
	return faults.Err()
}
