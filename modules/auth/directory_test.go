package auth

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

// started runs a test in a bubble of its own time, with an Auth that is started.
func started(t *testing.T, c Config, state *shared, run func(t *testing.T, auth *Auth)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		auth, _ := newAuthOf(t, c, state)
		require.NoError(t, auth.Start(t.Context()))
		run(t, auth)
		require.NoError(t, auth.Stop(t.Context()))
	})
}

func TestAProjectIsRefreshedInTheBackgroundBeforeItIsOld(t *testing.T) {
	state := projects()
	started(t, config(ModeStrict), state, func(t *testing.T, auth *Auth) {
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		state.write("phc_free", store.Fields{"enabled": "false"})
		time.Sleep(earliest*time.Minute/100 - time.Second)
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		synctest.Wait()
		require.Equal(t, 1, state.asked())

		// The store hangs, and no request waits for the refresh.
		hold := state.hang()
		time.Sleep((latest-earliest)*time.Minute/100 + time.Second)
		begin := time.Now()
		for range 10 {
			require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		}
		require.Zero(t, time.Since(begin))
		synctest.Wait()
		require.Equal(t, 2, state.asked(), "one refresh at a time")
		close(hold)
		synctest.Wait()
		require.Equal(t, events.ReasonDisabled, reasonOf(t, auth, callerOf("phc_free")))
		require.Equal(t, 2, state.asked(), "and one refresh in all")
	})
}

// A project that nobody asked about for a while may have been disabled: the next request waits for a look.
func TestAProjectThatIsOldIsLookedUpBeforeItIsUsed(t *testing.T) {
	state := projects()
	started(t, config(ModeStrict), state, func(t *testing.T, auth *Auth) {
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		state.write("phc_free", store.Fields{"enabled": "false"})
		time.Sleep(time.Minute)
		require.Equal(t, events.ReasonDisabled, reasonOf(t, auth, callerOf("phc_free")))
	})
}

func TestTheLastGoodRecordStaysInForceWhileTheStoreIsAway(t *testing.T) {
	state := projects()
	c := config(ModeStrict)
	c.OnStoreFailure = store.FailClosed
	started(t, c, state, func(t *testing.T, auth *Auth) {
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		state.fail(store.ErrUnavailable)
		time.Sleep(time.Hour)
		for range 10 {
			require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		}
		require.Equal(t, 2, state.asked(), "nobody asks a dead store again and again")
		admit := func() events.Reason {
			defer synctest.Wait() // for a refresh
			return reasonOf(t, auth, callerOf("phc_free"))
		}
		time.Sleep(retryAfter)
		require.Empty(t, admit())
		require.Equal(t, 3, state.asked())
		state.watch("") // anything may have changed
		for range 10 {
			require.Empty(t, admit())
		}
		require.Equal(t, 4, state.asked())
		state.fail(nil)
		state.write("phc_free", nil)
		time.Sleep(retryAfter)
		require.Empty(t, admit(), "no request waits for a refresh")
		require.Equal(t, events.ReasonUnknownToken, admit())
	})
}

func TestNoRequestOfAKnownProjectWaitsForAStoreThatHangs(t *testing.T) {
	state := projects()
	started(t, config(ModeStrict), state, func(t *testing.T, auth *Auth) {
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		hold := state.hang()
		for range 600 {
			time.Sleep(time.Second)
			begin := time.Now()
			require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
			require.Zero(t, time.Since(begin))
		}
		require.Greater(t, state.asked(), 200, "it is asked for all the time")
		close(hold)
	})
}

// When more projects are due than can wait for their refresh, the others have their turn later.
func TestAProjectThatFindsTheRefreshersBusyStaysDue(t *testing.T) {
	auth, _ := newAuthOf(t, config(ModeStrict), projects()) // nobody refreshes
	require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
	for range maxDue {
		auth.directory.due <- &entry{}
	}
	auth.directory.changed("phc_free")
	require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
	for range maxDue {
		require.Empty(t, (<-auth.directory.due).token)
	}
	require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
	require.Equal(t, "phc_free", (<-auth.directory.due).token)
}

func TestAHungStoreCostsARequestTheTimeoutAtMost(t *testing.T) {
	state := projects()
	started(t, config(ModeStrict), state, func(t *testing.T, auth *Auth) {
		hold := state.hang()
		begin := time.Now()
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		require.Equal(t, 50*time.Millisecond, time.Since(begin))
		close(hold)
	})
}

func TestRequestsOfOneTokenShareALookup(t *testing.T) {
	state := projects()
	started(t, config(ModeStrict), state, func(t *testing.T, auth *Auth) {
		hold := state.hang()
		var known atomic.Int64
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				caller := callerOf("phc_free")
				if auth.Admit(t.Context(), caller) == nil && caller.Project != nil {
					known.Add(1)
				}
			})
		}
		synctest.Wait()
		close(hold)
		all.Wait()
		require.EqualValues(t, 50, known.Load())
		require.Equal(t, 1, state.asked())
	})
}

func TestAChangeThatTheStoreTellsOfIsInForceAtOnce(t *testing.T) {
	state := projects()
	started(t, config(ModeStrict), state, func(t *testing.T, auth *Auth) {
		admit := func(token string) events.Reason {
			synctest.Wait()
			return reasonOf(t, auth, callerOf(token))
		}
		require.Empty(t, admit("phc_free"))
		state.put("phc_free", store.Fields{"enabled": "false"})
		require.Equal(t, events.ReasonDisabled, admit("phc_free"))
		state.put("phc_free", nil)
		require.Equal(t, events.ReasonUnknownToken, admit("phc_free"))
		state.put("phc_free", store.Fields{"id": "2"})
		require.Empty(t, admit("phc_free"), "that it was unknown is forgotten")

		require.Equal(t, events.ReasonUnknownToken, admit("phc_new"))
		state.write("phc_new", store.Fields{"id": "3"})
		state.write("phc_free", store.Fields{"enabled": "false"})
		require.Equal(t, events.ReasonUnknownToken, admit("phc_new"), "written by hand, and not told")
		state.watch("") // The store was away: anything may have changed.
		require.Empty(t, admit("phc_new"))
		require.Empty(t, admit("phc_free"), "no request waits for a refresh")
		require.Equal(t, events.ReasonDisabled, admit("phc_free"))
		time.Sleep(time.Hour)
		require.Empty(t, admit("phc_new"))
	})
}

func TestATokenOfNoProjectIsNotLookedUpAgainForAWhile(t *testing.T) {
	state := projects()
	started(t, config(ModeStrict), state, func(t *testing.T, auth *Auth) {
		for range 10 {
			require.Equal(t, events.ReasonUnknownToken, reasonOf(t, auth, callerOf("phc_new")))
		}
		require.Equal(t, 1, state.asked())
		state.write("phc_new", store.Fields{"id": "3"})
		time.Sleep(10 * time.Second)
		require.Empty(t, reasonOf(t, auth, callerOf("phc_new")))
	})
}

// What is asked before a change may be answered with what was before it.
func TestAnAnswerThatAChangeHasOvertakenIsNotKept(t *testing.T) {
	state := projects()
	started(t, config(ModeStrict), state, func(t *testing.T, auth *Auth) {
		state.write("phc_gone", store.Fields{"id": "1"})
		for token, after := range map[string]store.Fields{"phc_new": {"id": "3"}, "phc_gone": nil} {
			hold := state.hang()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = auth.Admit(t.Context(), callerOf(token))
			}()
			synctest.Wait()
			state.watch(token) // The answer is on its way, with what was before.
			close(hold)
			<-done
			state.write(token, after)
			_ = auth.Admit(t.Context(), callerOf(token))
			synctest.Wait()
			require.Equal(t, after == nil, reasonOf(t, auth, callerOf(token)) != "", token)
		}

		// The same, where the answer has faults.
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		state.write("phc_free", store.Fields{"enabled": "fasle"})
		hold := state.hang()
		state.watch("phc_free")
		synctest.Wait()
		state.watch("phc_free")
		close(hold)
		synctest.Wait()
		state.write("phc_free", store.Fields{"enabled": "false"})
		_ = auth.Admit(t.Context(), callerOf("phc_free"))
		synctest.Wait()
		require.Equal(t, events.ReasonDisabled, reasonOf(t, auth, callerOf("phc_free")))
	})
}

// A record that somebody has damaged is not read again with every request.
func TestARecordWithFaultsIsReadAgainAfterItsTime(t *testing.T) {
	state := projects()
	started(t, config(ModeStrict), state, func(t *testing.T, auth *Auth) {
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		state.put("phc_free", store.Fields{"enabled": "fasle"})
		for range 50 {
			synctest.Wait()
			require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
			time.Sleep(time.Second)
		}
		require.Equal(t, 2, state.asked())
		state.write("phc_free", store.Fields{"enabled": "false"})
		time.Sleep(time.Minute)
		_ = auth.Admit(t.Context(), callerOf("phc_free"))
		synctest.Wait()
		require.Equal(t, events.ReasonDisabled, reasonOf(t, auth, callerOf("phc_free")))
	})
}

// Whoever damages the record of a project does not open it for what others say of its token.
func TestARecordWithFaultsKeepsOthersFromBeingAsked(t *testing.T) {
	state := projects()
	other := scripted{500, "other", func(string) (*project.Record, error) { return &project.Record{}, nil }}
	auth, _ := newAuthOf(t, config(ModeStrict), state, other)
	require.Empty(t, reasonOf(t, auth, callerOf("phc_new")))
	require.Equal(t, events.ReasonUnknownToken, reasonOf(t, auth, callerOf("phc_isbroken")))
}

func TestARecordWithFaultsIsToldOfAndTheLastGoodOneStays(t *testing.T) {
	state := projects()
	core, logs := observer.New(zap.WarnLevel)
	auth, err := New(configs.Fixed(config(ModeStrict)), state, false, nil, zap.New(core), tally.NoopScope)
	require.NoError(t, err)
	require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
	require.Equal(t, events.ReasonUnknownToken, reasonOf(t, auth, callerOf("phc_isbroken")))
	require.Equal(t, 2, state.asked())

	state.write("phc_free", store.Fields{"enabled": "fasle", "scope": "events"})
	for range 2 {
		known, verdict := auth.directory.lookup("phc_free", auth.terms.Now())
		require.Equal(t, isKnown, verdict)
		require.Equal(t, "1", known.project.ID)
	}
	require.Equal(t, 2, logs.Len(), "each fault once")
	require.Equal(t, map[string]any{
		"kind": "project", "token": "phc_free",
		"faults": "scope: is no field of a project: did you mean scopes?\n" +
			"enabled: must be true or false, got \"fasle\"",
	}, logs.All()[1].ContextMap())
	broken := auth.status().Broken
	require.Len(t, broken, 2)
	require.Equal(t, "phc_free", broken[0].Token)
	require.True(t, broken[0].LastGood)
	require.False(t, broken[1].LastGood)

	state.write("phc_free", store.Fields{"id": "2"})
	known, _ := auth.directory.lookup("phc_free", auth.terms.Now())
	require.Equal(t, "2", known.project.ID)
	require.Len(t, auth.status().Broken, 1)
	for i := range 2 * maxBroken {
		state.write(strconv.Itoa(i), store.Fields{"enabled": "x"})
		auth.directory.lookup(strconv.Itoa(i), auth.terms.Now())
	}
	require.Len(t, auth.status().Broken, maxBroken)
}

// Invented tokens cost no more lookups than is configured, one client a part of them, and push no project out.
func TestAFloodOfInventedTokensIsBounded(t *testing.T) {
	state := projects()
	c := config(ModeStrict)
	c.MaxLookups, c.MaxProjects = 100, 10
	synctest.Test(t, func(t *testing.T) {
		auth, scope := newAuthOf(t, c, state)
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		flood := func(from string, requests int) (lookups int) {
			before := state.asked()
			for i := range requests {
				caller := callerOf(fmt.Sprintf("%s-%d-%d", from, i, time.Now().UnixNano()))
				caller.ClientIP = from
				require.NotEmpty(t, reasonOf(t, auth, caller))
			}
			return state.asked() - before
		}
		// The clients are of different groups, which depends on chance.
		groups := map[uint64]bool{auth.directory.lookups.group(callerOf("").ClientIP): true}
		pick := func(format string) string {
			for i := 1; ; i++ {
				client := fmt.Sprintf(format, i)
				if group := auth.directory.lookups.group(client); !groups[group] {
					groups[group] = true
					return client
				}
			}
		}
		network := strings.TrimSuffix(pick("2001:db8:%x::1"), ":1")
		clients := []string{pick("203.0.113.%d"), pick("203.0.113.%d"), pick("203.0.113.%d"), pick("203.0.113.%d")}
		require.Equal(t, 25, flood(clients[0], 1000))
		require.Equal(t, 25, flood(network+":1", 1000))
		require.Zero(t, flood(network+":2", 1000), "the same client")
		require.Equal(t, 25, flood(clients[1], 1000))
		require.LessOrEqual(t, flood(clients[2], 1000), 25)
		require.Zero(t, flood(clients[3], 1000), "the lookups of all clients are used up")
		require.Equal(t, 1, auth.directory.known.Len())
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))

		err := auth.Admit(t.Context(), callerOf("phc_real"))
		require.Equal(t, events.Unavailable, events.CodeOf(err), "a client is to come again")
		require.Positive(t, counted(scope, "requests_total+project=unasked"))
		time.Sleep(time.Second)
		require.Equal(t, 25, flood(clients[0], 1000))
	})
	c.Mode = ModeOpen
	for failure, want := range map[string]events.Reason{store.FailOpen: "", store.FailClosed: events.ReasonStore} {
		c.OnStoreFailure = failure
		auth, _ := newAuthOf(t, c, state)
		for auth.directory.lookups.all.Allow() {
		}
		require.Equal(t, want, reasonOf(t, auth, callerOf("phc_new")), failure)
	}
}

func TestTheTableOfTokensOfNoProjectHasAFixedSize(t *testing.T) {
	table := newAbsences()
	for i := range 3 * absenceSlots {
		token := strconv.Itoa(i)
		table.add(token, 10)
		require.True(t, table.has(token, 9))
		require.False(t, table.has(token, 10), "it has a time")
	}
	require.Len(t, table.slots, absenceSlots)
	table.add("a", 10)
	table.remove("a")
	require.False(t, table.has("a", 0))
	table.add("a", 10)
	table.clear()
	require.False(t, table.has("a", 0))
	require.False(t, newAbsences().has("", 0))
}

func TestProjectsBeyondTheLimitAreForgotten(t *testing.T) {
	state := projects()
	c := config(ModeStrict)
	c.MaxProjects = 2
	auth, _ := newAuthOf(t, c, state)
	for _, token := range []string{"phc_free", "phc_site", "phc_free", "phc_office", "phc_free"} {
		require.Empty(t, reasonOf(t, auth, callerOf(token)))
	}
	require.Equal(t, 2, auth.directory.known.Len())
	require.Equal(t, 3, state.asked())
}

// scripted is an authenticator of a module outside.
type scripted struct {
	rank    int
	name    string
	project func(token string) (*project.Record, error)
}

func (s scripted) Rank() int    { return s.rank }
func (s scripted) Name() string { return s.name }
func (s scripted) Project(_ context.Context, token string) (*project.Record, error) {
	return s.project(token)
}

func TestAuthenticatorsAreAskedInTheirOrder(t *testing.T) {
	state := projects()
	state.strings = map[string]string{"capture_known_tokens_swept_at": strconv.FormatInt(time.Now().Unix(), 10)}
	var asked []string
	of := func(rank int, name string, knows ...string) Authenticator {
		return scripted{rank, name, func(token string) (*project.Record, error) {
			asked = append(asked, name)
			for _, known := range knows {
				if token == known {
					return &project.Record{ID: name}, nil
				}
			}
			switch token {
			case "phc_error":
				return nil, errors.New("no answer")
			case "phc_panic":
				panic("no answer")
			}
			return nil, nil
		}}
	}
	auth, _ := newAuthOf(t, config(ModeStrict), state, of(500, "b", "phc_b"), of(500, "a", "phc_a"), of(50, "first"),
		of(950, "last", "phc_last", "phc_error"))
	require.Equal(t, []string{"first", "store", "a", "b", "posthog", "last"}, auth.status().Authenticators)
	for token, want := range map[string][]string{
		"phc_free": {"first"}, "phc_a": {"first", "a"}, "phc_b": {"first", "a", "b"},
		"phc_last": {"first", "a", "b", "last"}, "phc_nobody": {"first", "a", "b", "last"},
		"phc_error": {"first", "a", "b", "last"}, "phc_panic": {"first"},
	} {
		asked = nil
		caller := callerOf(token)
		require.Equal(t, token == "phc_nobody", reasonOf(t, auth, caller) != "", token)
		require.Equal(t, want, asked, token)
	}
	_, err := New(configs.Fixed(config(ModeOpen)), state, false, []Authenticator{of(1, "store")}, zap.NewNop(),
		tally.NoopScope)
	require.EqualError(t, err, `two authenticators are named "store": rename one or leave it out`)
}

// One that knows a token counts although one before it cannot say. It is asked again soon.
func TestAProjectThatIsKnownWithoutTheStoreIsAskedForAgainSoon(t *testing.T) {
	state := projects()
	state.fail(store.ErrUnavailable)
	asked := 0
	other := scripted{500, "other", func(string) (*project.Record, error) {
		asked++
		return &project.Record{ID: "of other"}, nil
	}}
	synctest.Test(t, func(t *testing.T) {
		auth, _ := newAuthOf(t, config(ModeStrict), state, other)
		require.NoError(t, auth.Start(t.Context()))
		for range 3 {
			caller := callerOf("phc_free")
			require.Empty(t, reasonOf(t, auth, caller))
			require.Equal(t, "of other", caller.Project.ID)
		}
		require.Equal(t, 1, asked)
		state.fail(nil)
		time.Sleep(retryAfter)
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
		synctest.Wait()
		caller := callerOf("phc_free")
		require.Empty(t, reasonOf(t, auth, caller))
		require.Equal(t, "1", caller.Project.ID)
		require.NoError(t, auth.Stop(t.Context()))
	})
}

// A store that is away does not enable a project that it has disabled, whoever else knows the token.
func TestTheLastRecordOfTheStoreGoesBeforeWhatOthersKnowWhileTheStoreIsAway(t *testing.T) {
	state := projects()
	state.write("phc_free", store.Fields{"id": "1", "enabled": "false"})
	other := scripted{500, "other", func(string) (*project.Record, error) {
		return &project.Record{ID: "of other"}, nil
	}}
	synctest.Test(t, func(t *testing.T) {
		auth, _ := newAuthOf(t, config(ModeStrict), state, other)
		require.NoError(t, auth.Start(t.Context()))
		require.Equal(t, events.ReasonDisabled, reasonOf(t, auth, callerOf("phc_free")))
		state.fail(store.ErrUnavailable)
		for range 3 {
			time.Sleep(time.Hour)
			require.Equal(t, events.ReasonDisabled, reasonOf(t, auth, callerOf("phc_free")))
			synctest.Wait()
		}
		state.fail(nil)
		state.write("phc_free", nil)
		time.Sleep(time.Hour)
		caller := callerOf("phc_free")
		require.Empty(t, reasonOf(t, auth, caller), "the store knows it no longer")
		require.Equal(t, "of other", caller.Project.ID)
		require.NoError(t, auth.Stop(t.Context()))
	})
}

func TestPostHogsListOfTokensIsBelievedWhileItIsFresh(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	swept := func(age time.Duration) string { return strconv.FormatInt(now.Add(-age).Unix(), 10) }
	for _, test := range []struct {
		about string
		keys  map[string]string
		fault error
		known bool
		err   string
	}{
		{"no Redis", nil, nil, false, ""},
		{"listed", map[string]string{"capture_known_token:phc_a": "1"}, nil, true, ""},
		{"not listed", map[string]string{"capture_known_tokens_swept_at": swept(time.Hour)}, nil, false, ""},
		{"old", map[string]string{"capture_known_tokens_swept_at": swept(time.Hour + time.Second)}, nil, false,
			"was last whole 1h0m1s ago"},
		{"never whole", map[string]string{}, nil, false, "does not say when it was whole"},
		{"damaged", map[string]string{"capture_known_tokens_swept_at": "soon"}, nil, false, "does not say when"},
		{"away", map[string]string{}, store.ErrUnavailable, false, store.ErrUnavailable.Error()},
	} {
		authenticator := &postHog{
			store: &shared{strings: test.keys, fault: test.fault}, now: func() time.Time { return now },
		}
		found, err := authenticator.Project(t.Context(), "phc_a")
		require.Equal(t, test.known, found != nil, test.about)
		if test.err == "" {
			require.NoError(t, err, test.about)
		} else {
			require.ErrorContains(t, err, test.err, test.about)
		}
	}
}

func TestOneRequestASecondWaitsForPostHogsRedisWhileItIsAway(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	state := &shared{strings: map[string]string{"capture_known_token:phc_a": "1"}, fault: store.ErrUnavailable}
	authenticator := &postHog{store: state, now: func() time.Time { return now }}
	ask := func(ctx context.Context) (bool, error) {
		found, err := authenticator.Project(ctx, "phc_a")
		return found != nil, err
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := ask(over)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, state.asked(), "others have used up the time")
	for second := range 3 {
		for range 10 {
			_, err := ask(t.Context())
			require.Error(t, err)
		}
		require.Equal(t, second+1, state.asked())
		now = now.Add(retryAfter)
	}
	state.fail(nil)
	for range 3 {
		known, err := ask(t.Context())
		require.NoError(t, err)
		require.True(t, known)
	}
	state.fail(errors.New("WRONGTYPE"))
	_, err = ask(t.Context())
	require.Error(t, err)
	state.fail(nil)
	known, err := ask(t.Context())
	require.NoError(t, err, "a record that cannot be read says nothing about PostHog's Redis")
	require.True(t, known)
}
