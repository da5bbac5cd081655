// Package storetest holds every implementation of modules/store to the contract that is written there. Run is called by
// the tests of each implementation, with a function that opens an installation of it.
//
// The tests use real time only where the installation has no other (see Installation.Pass). Each test takes tokens and
// names of its own, so an installation may keep its data from one test to the next.
package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/store"
)

// Installation is a store under test, and any number of nodes that use it. A nil function means that the implementation
// cannot do that; the tests that need it are skipped, and say so.
type Installation struct {
	// Node starts a further node and returns its handle on the store. The node ends with the test. before is called
	// before the node starts, as Records.Watch wants it; it may be nil.
	Node func(before func(store.Store)) store.Store

	// Pass lets the time pass on the clock of the store, for leases, windows and rates. Quick says that it takes no
	// time itself; then the tests let it pass often.
	Pass  func(time.Duration)
	Quick bool

	// Restart ends the store as hard as a crash does, after what was settled has got there, and starts it again with
	// what it has kept. The nodes, with their handles, outlive that.
	Restart func()

	// Save copies what the store knows. The function that it returns makes the store forget all that has happened
	// since, as a failover does to a replica that had fallen behind. Reservations and done digests may stay.
	Save func() (restore func())

	// Away makes the store unreachable until back is called. Deadline is how long a call may take meanwhile, and
	// OpenDeadline how long once the breaker is open.
	Away                   func() (back func())
	Deadline, OpenDeadline time.Duration

	// SetSorted and SetString write what PostHog reads, for an installation that has a Redis of PostHog's.
	SetSorted func(key string, members map[string]float64)
	SetString func(key, value string)
}

// Run runs the suite. open is called once in each test, and may end what it opens by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Installation) {
	for _, suite := range []struct {
		name  string
		tests []test
	}{
		{"Reserver", reserverTests},
		{"Quotas", quotaTests},
		{"Rates", rateTests},
		{"Records", recordTests},
		{"PostHog", postHogTests},
		{"Store", storeTests},
	} {
		t.Run(suite.name, func(t *testing.T) {
			for _, one := range suite.tests {
				t.Run(one.name, func(t *testing.T) { one.run(t, open(t)) })
			}
		})
	}
}

type test struct {
	name string
	run  func(t *testing.T, in Installation)
}

// patience is how long a test waits for what happens soon.
const patience = 20 * time.Second

// hostileTokens are tokens that mean something to a store, a pattern, a file or a terminal. All are ASCII.
var hostileTokens = []string{
	"phc_a", "phc_b", "{", "}", "{}", "{a}", "a{b}c", "}{", "a:b", ":", "*", "?", "[a-z]", `\`, `\*`, "^",
	"a\nb", "\r\n", "\x00", "\x1b[2J", "..", "/", "../a", ".", " ", "'", `"`, "%00", "%", "a,b", "-", "$", "`",
	"0", "project:{a}", "~", "\x7f",
}

// unique returns a text that no other test has, in any run.
func unique(prefix string) string { return fmt.Sprintf("%s-%016x", prefix, rand.Uint64()) }

func digest() (d store.Digest) {
	for i := range d {
		d[i] = byte(rand.Uint32())
	}
	return d
}

func digests(n int) []store.Digest {
	all := make([]store.Digest, n)
	for i := range all {
		all[i] = digest()
	}
	return all
}

func owner() store.Owner { return store.Owner(rand.Uint64()) }

// tester is what both *testing.T and *rapid.T are.
type tester interface {
	require.TestingT
	Helper()
}

func claims(
	t tester, s store.Store, token string, owner store.Owner, lease time.Duration, digests ...store.Digest,
) []store.Claim {
	t.Helper()
	found := make([]store.Claim, len(digests))
	require.NoError(t, s.Reserve(context.Background(), token, owner, digests, lease, found))
	return found
}

func claim(t tester, s store.Store, token string, owner store.Owner, lease time.Duration, d store.Digest) store.Claim {
	t.Helper()
	return claims(t, s, token, owner, lease, d)[0]
}

// together runs n goroutines and waits for them.
func together(t *testing.T, n int, run func(i int)) {
	t.Helper()
	group := panics.NewGroup(zap.NewNop())
	for i := range n {
		group.Go("a racer", func() {
			err := panics.Catch(func() error {
				run(i)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func skipWithout(t *testing.T, has bool, what string) {
	t.Helper()
	if !has {
		t.Skipf("this installation cannot %s", what)
	}
}
