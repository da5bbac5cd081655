package dedup

import (
	"slices"
	"strings"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/store"
)

// Config is the section "dedup".
type Config struct {
	Window         time.Duration `key:"window" live:"true" doc:"For how long an event is known after it was stored: until then, the same event is not stored again. 0: every event is stored as often as it is sent."`
	Identity       string        `key:"identity" live:"true" doc:"What makes two events the same. content: the uuid that the client gave the event, or else all that the client said of the event, to the byte. triple: the distinct_id, the name and the timestamp, whatever the uuid; of several events of a user with one name and time, one is stored."`
	Lease          time.Duration `key:"lease" live:"true" doc:"How long an event that is being handled stays reserved after its node has died. A request that takes longer makes its reservations again. A client gives up earlier if this is long: see docs/deduplication.md."`
	Wait           time.Duration `key:"wait" live:"true" doc:"How long a request waits for another one that is handling the same event. After that it is answered 503."`
	MaxWaiting     int           `key:"max_waiting" live:"true" doc:"How many requests may wait like this. Further ones are answered 503 at once."`
	OnStoreFailure string        `key:"on_store_failure" live:"true" doc:"What happens while the store does not answer. open: events are stored without a look at what was stored before. closed: events are answered 503."`
}

// The values of identity.
const (
	identityContent = "content"
	identityTriple  = "triple"
)

var identities = []string{identityContent, identityTriple}

// DefaultConfig returns the defaults of the section.
func DefaultConfig() Config {
	return Config{
		Window: time.Hour, Identity: identityContent, Lease: 3 * time.Second, Wait: time.Second, MaxWaiting: 1000,
		OnStoreFailure: store.FailOpen,
	}
}

// The limits of settings.
const (
	shortestLease = 100 * time.Millisecond
	longestLease  = time.Minute
	longestWait   = 10 * time.Second
	longestWindow = 30 * 24 * time.Hour
	mostWaiting   = 1_000_000
)

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(c.Lease >= shortestLease && c.Lease <= longestLease, "lease", "must be from %s to %s, got %s",
		shortestLease, longestLease, c.Lease)
	faults.Check(c.Window == 0 || c.Window >= c.Lease && c.Window <= longestWindow, "window",
		"must be 0, or from the lease (%s) to %s, got %s", c.Lease, longestWindow, c.Window)
	faults.Check(slices.Contains(identities, c.Identity), "identity", "must be %s, got %q",
		strings.Join(identities, " or "), c.Identity)
	faults.Check(c.Wait >= 0 && c.Wait <= longestWait, "wait", "must be from 0 to %s, got %s", longestWait, c.Wait)
	faults.Check(c.MaxWaiting >= 0 && c.MaxWaiting <= mostWaiting, "max_waiting", "must be from 0 to %d, got %d",
		mostWaiting, c.MaxWaiting)
	store.CheckOnFailure(&faults, c.OnStoreFailure)
	return faults.Err()
}

func (c Config) isClosed() bool { return c.OnStoreFailure == store.FailClosed }
