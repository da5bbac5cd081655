package dedup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// topic is a sink that keeps the names of the events that it is given, as Kafka does.
type topic struct {
	mu    sync.Mutex
	names []string
	// next judges the events of the next writes; the sink accepts what is left pending. A judge may wait or panic.
	next []func(*events.Event)
}

func (k *topic) Write(_ context.Context, batch *events.Batch) {
	k.mu.Lock()
	judge := func(*events.Event) {}
	if len(k.next) > 0 {
		judge, k.next = k.next[0], k.next[1:]
	}
	k.mu.Unlock()
	for i := range batch.Events {
		if event := &batch.Events[i]; event.Pending() {
			if judge(event); event.Pending() {
				k.keep(event)
				event.Accept()
			}
		}
	}
}

func (k *topic) keep(event *events.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.names = append(k.names, event.Name)
}

func (k *topic) then(judge func(*events.Event)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next = append(k.next, judge)
}

func (k *topic) kept() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string{}, k.names...)
}

// node is a node of an installation: the pipeline with the stage, in front of a topic.
type node struct {
	*Stage
	events.Processor

	ledger *events.Ledger
	scope  tally.TestScope
	logs   *observer.ObservedLogs
	t      *testing.T
}

// newNode starts a node. It ends with the test, or when its Stop is called.
func newNode(t *testing.T, reserver store.Reserver, sink events.Sink, config Config, stages ...events.Stage) *node {
	core, logs := observer.New(zap.DebugLevel)
	n := &node{t: t, ledger: events.NewLedger(), scope: tally.NewTestScope("", nil), logs: logs}
	var err error
	n.Stage, err = NewStage(configs.Fixed(config), reserver, zap.New(core), n.scope)
	require.NoError(t, err)
	pipeline, err := events.NewPipeline(zap.NewNop(), tally.NoopScope, append(stages, n.Stage)...)
	require.NoError(t, err)
	n.Processor = events.NewProcessor(pipeline, sink, n.ledger, zap.NewNop(), tally.NoopScope)
	require.NoError(t, n.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, n.Stop(context.Background())) })
	return n
}

// Process is the processor's; the stage has one as well.
func (n *node) Process(ctx context.Context, batch *events.Batch) { n.Processor.Process(ctx, batch) }

func (n *node) count(name string) int64 {
	return n.scope.Snapshot().Counters()[name+"+"].Value()
}

// send sends events and returns their outcomes, as state and reason.
func (n *node) send(list ...events.Event) []string {
	return n.sendFor(context.Background(), "phc_a", list...)
}

func (n *node) sendFor(ctx context.Context, token string, list ...events.Event) []string {
	batch := &events.Batch{Token: token, Received: time.Now(), Events: append([]events.Event{}, list...)}
	n.Process(ctx, batch)
	return outcomes(batch)
}

func outcomes(batch *events.Batch) []string {
	var all []string
	for i := range batch.Events {
		outcome := batch.Events[i].Outcome
		text := outcome.State.String()
		if outcome.Reason != "" {
			text += " " + string(outcome.Reason)
		}
		all = append(all, text)
	}
	return all
}

const (
	accepted  = "accepted"
	duplicate = "accepted duplicate"
	inFlight  = "failed in_flight"
	timedOut  = "failed sink_timeout"
)

// event is an event whose uuid is the client's, made of its name.
func event(name string) events.Event {
	return events.Event{
		Name: name, UUID: uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)), ClientUUID: true, DistinctID: "me",
		Raw: events.Raw{Properties: []byte(`{}`)},
	}
}

func fail(reason events.Reason) func(*events.Event) {
	return func(e *events.Event) { e.Fail(reason, events.Errorf(events.Unavailable, "the test says so")) }
}

// hold is a judge that waits, and a function that ends the waiting.
func hold(then func(*events.Event)) (judge func(*events.Event), release func()) {
	held := make(chan struct{})
	return func(e *events.Event) {
		<-held
		if then != nil {
			then(e)
		}
	}, sync.OnceFunc(func() { close(held) })
}

// started runs send in a goroutine. The returned function waits for the outcomes.
func started(send func() []string) (wait func() []string) {
	done := make(chan []string, 1)
	go func() { done <- send() }() // it ends with the test
	return func() []string { return <-done }
}

func TestAResentEventIsADuplicateOnEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := newStore(t), &topic{}
		a, b := newNode(t, shared, sink, DefaultConfig()), newNode(t, shared, sink, DefaultConfig())
		require.Equal(t, []string{accepted, accepted}, a.send(event("one"), event("two")))
		require.Equal(t, []string{duplicate, duplicate}, a.send(event("one"), event("two")))
		require.Equal(t, []string{accepted, duplicate}, b.send(event("three"), event("two")))
		require.Equal(t, []string{accepted}, a.sendFor(t.Context(), "phc_b", event("one")), "of another project")
		require.Equal(t, []string{"one", "two", "three", "one"}, sink.kept())
		require.Equal(t, int64(2), a.count("duplicates_total"))
		require.Equal(t, uint64(2), a.ledger.Snapshot().Duplicates)
		require.Equal(t, uint64(5), a.ledger.Snapshot().Accepted)

		time.Sleep(time.Hour + time.Hour/4)
		require.Equal(t, []string{accepted}, a.send(event("one")), "the window is over")
	})
}

func TestWhatWasNotStoredIsJudgedAnew(t *testing.T) {
	for name, judge := range map[string]func(*events.Event){
		"failed":   fail(events.ReasonUnavailable),
		"dropped":  func(e *events.Event) { e.Drop(events.ReasonQuota) },
		"rejected": func(e *events.Event) { e.Reject(events.ReasonTooLarge, errors.New("too large")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shared, sink := newStore(t), &topic{}
				a, b := newNode(t, shared, sink, DefaultConfig()), newNode(t, shared, sink, DefaultConfig())
				sink.then(judge)
				require.NotEqual(t, []string{accepted}, a.send(event("one")))
				require.Equal(t, []string{accepted}, b.send(event("one")))
				require.Equal(t, []string{duplicate}, a.send(event("one")))
				require.Equal(t, []string{"one"}, sink.kept())
			})
		})
	}
}

func TestOfTwoRequestsAtOnceTheSecondWaitsForTheEndOfTheFirst(t *testing.T) {
	for name, test := range map[string]struct {
		end   func(*events.Event)
		first string
		want  string
	}{
		"which is stored": {nil, accepted, duplicate},
		"which fails":     {fail(events.ReasonUnavailable), "failed sink_unavailable", accepted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shared, sink := newStore(t), &topic{}
				a, b := newNode(t, shared, sink, DefaultConfig()), newNode(t, shared, sink, DefaultConfig())
				judge, release := hold(test.end)
				sink.then(judge)
				first := started(func() []string { return a.send(event("one")) })
				synctest.Wait()
				second := started(func() []string { return b.send(event("one"), event("two")) })
				time.Sleep(500 * time.Millisecond)
				require.Equal(t, float64(1), b.scope.Snapshot().Gauges()["waiting+"].Value())
				release()
				require.Equal(t, []string{test.first}, first())
				require.Equal(t, []string{test.want, accepted}, second())
				require.Equal(t, int64(1), b.count("waits_total"))
				require.Zero(t, b.scope.Snapshot().Gauges()["waiting+"].Value())
				require.ElementsMatch(t, []string{"one", "two"}, sink.kept())
			})
		})
	}
}

func TestTheLoserIsAskedToComeAgainAfterTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := newStore(t), &topic{}
		a, b := newNode(t, shared, sink, DefaultConfig()), newNode(t, shared, sink, DefaultConfig())
		judge, release := hold(nil)
		sink.then(judge)
		first := started(func() []string { return a.send(event("one")) })
		synctest.Wait()

		began := time.Now()
		batch := &events.Batch{Token: "phc_a", Events: []events.Event{event("one"), event("two")}}
		b.Process(t.Context(), batch)
		require.Equal(t, []string{inFlight, accepted}, outcomes(batch), "the other event is not held up for good")
		require.Equal(t, events.Unavailable, events.CodeOf(batch.Events[0].Outcome.Err))
		require.Equal(t, DefaultConfig().Wait, time.Since(began))
		require.Equal(t, int64(1), b.count("in_flight_total"))

		release()
		require.Equal(t, []string{accepted}, first())
		require.Equal(t, []string{duplicate, duplicate}, b.send(event("one"), event("two")))
		require.ElementsMatch(t, []string{"one", "two"}, sink.kept())
	})
}

// What ends just before the wait is over is seen: the last look comes at its end.
func TestAWaitEndsWithALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		a, b := newNode(t, shared, sink, config), newNode(t, shared, sink, config)
		judge, release := hold(nil)
		sink.then(judge)
		first := started(func() []string { return a.send(event("one")) })
		synctest.Wait()
		second := started(func() []string { return b.send(event("one")) })
		time.Sleep(config.Wait - time.Millisecond)
		release()
		require.Equal(t, []string{accepted}, first())
		require.Equal(t, []string{duplicate}, second())
	})
}

func TestAWaitEndsWithTheClientAndWithTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := newStore(t), &topic{}
		a, b := newNode(t, shared, sink, DefaultConfig()), newNode(t, shared, sink, DefaultConfig())
		judge, release := hold(nil)
		sink.then(judge)
		first := started(func() []string { return a.send(event("one")) })
		synctest.Wait()

		began := time.Now()
		ctx, leave := context.WithCancel(t.Context())
		second := started(func() []string { return b.sendFor(ctx, "phc_a", event("one")) })
		time.Sleep(100 * time.Millisecond)
		leave()
		require.Equal(t, []string{inFlight}, second())
		require.Equal(t, 100*time.Millisecond, time.Since(began))

		second = started(func() []string { return b.send(event("one")) })
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, b.Stop(t.Context()))
		require.Equal(t, []string{inFlight}, second())
		require.Equal(t, 200*time.Millisecond, time.Since(began))
		release()
		require.Equal(t, []string{accepted}, first())
	})
}

func TestOnlySoManyRequestsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		config.MaxWaiting = 2
		n := newNode(t, shared, sink, config)
		judge, release := hold(nil)
		sink.then(judge)
		first := started(func() []string { return n.send(event("one")) })
		synctest.Wait()
		var waiting []func() []string
		for range 2 {
			waiting = append(waiting, started(func() []string { return n.send(event("one")) }))
		}
		synctest.Wait()
		began := time.Now()
		require.Equal(t, []string{inFlight}, n.send(event("one")))
		require.Zero(t, time.Since(began))
		release()
		require.Equal(t, []string{accepted}, first())
		for _, wait := range waiting {
			require.Equal(t, []string{duplicate}, wait())
		}
		require.Equal(t, []string{duplicate}, n.send(event("one")))
	})
}

func TestNobodyWaitsIfNoWaitIsConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		config.Wait = 0
		n := newNode(t, shared, sink, config)
		judge, release := hold(nil)
		sink.then(judge)
		first := started(func() []string { return n.send(event("one")) })
		synctest.Wait()
		began := time.Now()
		require.Equal(t, []string{inFlight}, n.send(event("one")))
		require.Zero(t, time.Since(began))
		require.Zero(t, n.count("waits_total"))
		release()
		require.Equal(t, []string{accepted}, first())
	})
}

// A node that dies holds what it has reserved for a lease, and no longer.
func TestAnEventOfADeadNodeIsTakenAfterTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		dead, alive := newNode(t, shared, sink, config), newNode(t, shared, sink, config)
		batch := &events.Batch{Token: "phc_a", Events: []events.Event{event("one")}}
		settle, err := dead.Stage.Process(t.Context(), batch)
		require.NoError(t, err)
		require.NotNil(t, settle)
		require.NoError(t, dead.Stop(t.Context())) // and nothing of it settles

		require.Equal(t, []string{inFlight}, alive.send(event("one")))
		time.Sleep(config.Lease - config.Wait)
		require.Equal(t, []string{accepted}, alive.send(event("one")))
		require.Equal(t, []string{"one"}, sink.kept())
	})
}

// An SDK that tries four times, without any pause, must not give up before the lease of a dead node is over.
func TestFourAttemptsOutlastTheLease(t *testing.T) {
	config := DefaultConfig()
	require.LessOrEqual(t, config.Lease, 3*config.Wait)
}

func TestASlowRequestKeepsItsReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		a, b := newNode(t, shared, sink, config), newNode(t, shared, sink, config)
		judge, release := hold(nil)
		sink.then(judge)
		first := started(func() []string { return a.send(event("one"), event("two")) })
		synctest.Wait()
		for range 20 {
			time.Sleep(time.Second)
			require.Equal(t, []string{inFlight}, b.send(event("one")))
		}
		release()
		require.Equal(t, []string{accepted, accepted}, first())
		require.Equal(t, []string{duplicate, duplicate}, b.send(event("one"), event("two")))
		require.Equal(t, []string{"one", "two"}, sink.kept())
		require.GreaterOrEqual(t, a.count("renewed_total"), int64(2*20*2*time.Second/config.Lease/2))
		require.Zero(t, a.count("lost_total"))
		require.Empty(t, a.keeper.works)
	})
}

// A renewal that fails is tried again before the lease is over.
func TestARenewalThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		faulty := &flaky{Reserver: shared}
		a, b := newNode(t, faulty, sink, config), newNode(t, shared, sink, config)
		judge, release := hold(nil)
		sink.then(judge)
		first := started(func() []string { return a.send(event("one")) })
		synctest.Wait()
		faulty.set(store.ErrUnavailable)
		time.Sleep(config.Lease/2 + config.Lease/rounds)
		faulty.set(nil)
		time.Sleep(config.Lease / 4)
		require.Positive(t, a.count("renewed_total"), "before the lease is over")
		time.Sleep(config.Lease)
		require.Equal(t, []string{inFlight}, b.send(event("one")))
		require.Zero(t, a.count("lost_total"))
		release()
		require.Equal(t, []string{accepted}, first())
		require.Equal(t, []string{"one"}, sink.kept())
	})
}

// The keeper may just have picked a request when that one settles: it leaves its reservations alone then.
func TestARequestThatHasSettledIsNotRenewed(t *testing.T) {
	shared := &flaky{Reserver: ready{}}
	n := newNode(t, shared, &topic{}, DefaultConfig())
	w := &work{stage: n.Stage, lease: time.Second, digests: make([]store.Digest, 1), claims: make([]store.Claim, 1)}
	w.claims[0] = store.Reserved
	began := time.Now().Add(time.Hour) // so that the node's own rounds leave it alone
	n.keeper.add(w, began)
	n.keeper.drop(w)
	n.keeper.renew(t.Context(), w, began.Add(time.Minute))
	require.Zero(t, shared.calls)
}

// A request that hangs for good must not keep a retry from being stored for good.
func TestNoReservationIsKeptForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := newStore(t), &topic{}
		a, b := newNode(t, shared, sink, DefaultConfig()), newNode(t, shared, sink, DefaultConfig())
		judge, release := hold(nil)
		sink.then(judge)
		first := started(func() []string { return a.send(event("one")) })
		time.Sleep(longestKept - 10*time.Second)
		require.Equal(t, []string{inFlight}, b.send(event("one")))
		time.Sleep(20 * time.Second)
		require.Equal(t, []string{accepted}, b.send(event("one")))
		release()
		first()
	})
}

// A node that was away, such as a frozen machine, finds that another one has taken over.
func TestAReservationThatIsLostIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := newStore(t), &topic{}
		faulty := &flaky{Reserver: shared}
		a, b := newNode(t, faulty, sink, DefaultConfig()), newNode(t, shared, sink, DefaultConfig())
		judge, release := hold(nil)
		sink.then(judge)
		first := started(func() []string { return a.send(event("one")) })
		synctest.Wait()
		faulty.set(store.ErrUnavailable)
		time.Sleep(DefaultConfig().Lease + time.Second)
		require.Equal(t, []string{accepted}, b.send(event("one")))
		faulty.set(nil)
		time.Sleep(time.Second)
		require.Positive(t, a.count("lost_total"))
		release()
		require.Equal(t, []string{accepted}, first(), "it is stored, so it was accepted")
	})
}

// Nobody knows what becomes of an event that has timed out. So it stays reserved for a lease, and a retry is not stored
// beside it.
func TestAnEventThatMayYetBeStoredStaysReservedForALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		n := newNode(t, shared, sink, config)
		sink.then(fail(events.ReasonTimeout))
		require.Equal(t, []string{timedOut}, n.send(event("one")))
		require.Equal(t, int64(1), n.count("open_ends_total"))
		require.Equal(t, []string{inFlight}, n.send(event("one")))
		time.Sleep(config.Lease)
		require.Equal(t, []string{accepted}, n.send(event("one")))
	})
}

// failLate is a judge that does not know in time how events end, and a function that tells it.
func failLate() (judge func(*events.Event), tell func(safe bool)) {
	var ends []*events.Late
	judge = func(e *events.Event) {
		end := &events.Late{}
		end.Await()
		ends = append(ends, end)
		e.FailLate(end, events.Errorf(events.Unavailable, "the test says so"))
	}
	return judge, func(safe bool) {
		for _, end := range ends {
			end.Report(safe)
		}
	}
}

// The sink tells long after the answer, and after many leases, how the event has ended. Until then it stays reserved,
// on all nodes.
func TestAnEventThatIsStoredLongAfterItsTimeOutIsStoredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		a, b := newNode(t, shared, sink, config), newNode(t, shared, sink, config)
		judge, tell := failLate()
		sink.then(judge)
		require.Equal(t, []string{timedOut}, a.send(event("one")))
		for range 20 {
			time.Sleep(config.Lease)
			require.Equal(t, []string{inFlight}, b.send(event("one")))
		}
		waiting := started(func() []string { return b.send(event("one")) })
		time.Sleep(config.Wait / 4)
		tell(true)
		require.Equal(t, []string{duplicate}, waiting(), "who waits for the event is told")
		require.Equal(t, []string{duplicate}, a.send(event("one")))
		time.Sleep(config.Window - time.Second)
		require.Equal(t, []string{duplicate}, b.send(event("one")), "for the window from then on")
		require.Empty(t, sink.kept(), "no copy")
		require.Equal(t, int64(1), a.count("late_stored_total"))
		require.Zero(t, a.count("open_ends_total"))
		require.Zero(t, a.overdue())
	})
}

func TestAnEventThatIsNotStoredAfterItsTimeOutIsFreeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		a, b := newNode(t, shared, sink, config), newNode(t, shared, sink, config)
		judge, tell := failLate()
		sink.then(judge)
		require.Equal(t, []string{timedOut, timedOut}, a.send(event("one"), event("two")))
		time.Sleep(10 * config.Lease)
		tell(false)
		require.Equal(t, []string{accepted, accepted}, b.send(event("one"), event("two")))
		require.Equal(t, int64(2), a.count("late_released_total"))
		require.Zero(t, a.overdue())
		time.Sleep(10 * config.Lease)
		require.Equal(t, []string{duplicate, duplicate}, a.send(event("one"), event("two")))
	})
}

// A copy in the same request ends as the first one, and a stage may make several events of one: all of them count.
func TestWhatEndsLateIsSafeOnlyAsAWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		split := changing{change: func(b *events.Batch) { b.Events = append(b.Events, b.Events[0]) }}
		for _, safe := range []bool{true, false} {
			n := newNode(t, shared, sink, config, split)
			var ends []*events.Late
			sink.then(func(e *events.Event) {
				end := &events.Late{}
				end.Await()
				ends = append(ends, end)
				e.FailLate(end, events.Errorf(events.Unavailable, "the test says so"))
			})
			name := fmt.Sprint("split ", safe)
			require.Equal(t, []string{timedOut, timedOut, timedOut}, n.send(event(name), event(name)))
			require.Len(t, ends, 2)
			ends[0].Report(true)
			require.Equal(t, []string{inFlight}, newNode(t, shared, sink, config).send(event(name)))
			ends[1].Report(safe)
			want := map[bool]string{true: duplicate, false: accepted}[safe]
			require.Equal(t, []string{want}, newNode(t, shared, sink, config).send(event(name)))
		}
	})
}

// overdue returns how many requests have events whose ends are awaited.
func (n *node) overdue() int {
	n.keeper.mu.Lock()
	defer n.keeper.mu.Unlock()
	return len(n.keeper.late)
}

// overtaken is a reserver before whose calls something else happens.
type overtaken struct {
	store.Reserver
	before func()
}

func (o overtaken) Reserve(
	ctx context.Context, token string, owner store.Owner, digests []store.Digest, lease time.Duration,
	claims []store.Claim,
) error {
	o.before()
	return o.Reserver.Reserve(ctx, token, owner, digests, lease, claims)
}

func TestALateEndIsNotOvertakenByARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		judge, tell := failLate()
		var calls atomic.Int32
		slow := overtaken{Reserver: shared, before: func() {
			if calls.Add(1) == 2 {
				tell(false)
			}
		}}
		a := newNode(t, slow, sink, config)
		sink.then(judge)
		require.Equal(t, []string{timedOut}, a.send(event("one")))
		time.Sleep(config.Lease)
		require.Equal(t, int32(2), calls.Load())
		require.Equal(t, []string{accepted}, newNode(t, shared, sink, config).send(event("one")))
	})
}

func TestNoLateEndIsAwaitedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		n := newNode(t, shared, sink, config)
		judge, tell := failLate()
		sink.then(judge)
		require.Equal(t, []string{timedOut}, n.send(event("one")))
		time.Sleep(longestKept + config.Lease)
		require.Zero(t, n.overdue())
		require.Equal(t, []string{accepted}, n.send(event("one")))
		tell(true)
		require.Equal(t, []string{duplicate}, n.send(event("one")))
	})
}

func TestAPanicHoldsNothingForLongerThanALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink, config := newStore(t), &topic{}, DefaultConfig()
		n := newNode(t, shared, sink, config)
		sink.then(func(*events.Event) { panic("the test says so") })
		require.Equal(t, []string{"failed unsettled"}, n.send(event("one")))
		require.Equal(t, []string{inFlight}, n.send(event("one")))
		time.Sleep(config.Lease)
		require.Equal(t, []string{accepted}, n.send(event("one")))
		require.Empty(t, n.keeper.works)

		broken := &flaky{Reserver: shared, reserve: func([]store.Claim) { panic("the test says so") }}
		n = newNode(t, broken, sink, config)
		require.Equal(t, []string{"failed stage_failed"}, n.send(event("two")))
		require.Empty(t, n.keeper.works)
		require.Equal(t, []string{"failed stage_failed"}, n.send(event("two")))

		// In the middle of a wait for one event, while another is reserved.
		n = newNode(t, broken, sink, config)
		broken.reserve = func(claims []store.Claim) {
			if len(claims) < 2 {
				panic("the test says so")
			}
			claims[0], claims[1] = store.Reserved, store.Busy
		}
		require.Equal(t, []string{"failed stage_failed", "failed stage_failed"}, n.send(event("three"), event("four")))
		require.Empty(t, n.keeper.works, "nobody renews what nobody will settle")
	})
}

// stages that change the batch behind the stage
type changing struct {
	change func(*events.Batch)
	err    error
}

func (changing) Phase() events.Phase { return events.PhasePlugins }
func (changing) Name() string        { return "changing" }

func (c changing) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	c.change(batch)
	return nil, c.err
}

func TestWhatLaterStagesDoIsSettled(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*events.Batch)
		err    error
		want   []string
		again  []string
	}{
		"exchange": {
			change: func(b *events.Batch) {
				b.Events[0], b.Events[1] = b.Events[1], b.Events[0]
				b.Events[0].Drop(events.ReasonRule) // it was the second
			},
			want: []string{"dropped rule", accepted}, again: []string{duplicate, accepted},
		},
		"add": {
			change: func(b *events.Batch) { b.Events = append(b.Events, event("three")) },
			want:   []string{accepted, accepted, accepted}, again: []string{duplicate, duplicate},
		},
		"make two of one, of which one fails": {
			change: func(b *events.Batch) {
				b.Events = append(b.Events, b.Events[0])
				b.Events[2].Fail("some_reason", errors.New("the test says so"))
			},
			want: []string{accepted, accepted, "failed some_reason"}, again: []string{accepted, duplicate},
		},
		"make two of one, of which the first fails": {
			change: func(b *events.Batch) {
				b.Events = append(b.Events, b.Events[0])
				b.Events[0].Fail("some_reason", errors.New("the test says so"))
			},
			want: []string{"failed some_reason", accepted, accepted}, again: []string{accepted, duplicate},
		},
		"fail": {
			change: func(*events.Batch) {}, err: errors.New("the test says so"),
			want: []string{"failed stage_failed", "failed stage_failed"}, again: []string{accepted, accepted},
		},
		"panic": {
			change: func(*events.Batch) { panic("the test says so") },
			want:   []string{"failed stage_failed", "failed stage_failed"}, again: []string{accepted, accepted},
		},
		"take events away": {
			change: func(b *events.Batch) { b.Events = b.Events[:1] },
			want:   []string{"failed stage_failed", "failed stage_failed"}, again: []string{accepted, accepted},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shared, sink := newStore(t), &topic{}
				n := newNode(t, shared, sink, DefaultConfig(), changing{test.change, test.err})
				require.Equal(t, test.want, n.send(event("one"), event("two")))
				n = newNode(t, shared, sink, DefaultConfig())
				require.Equal(t, test.again, n.send(event("one"), event("two")))
			})
		})
	}
}

func TestOfTwoEventsWithOneUUIDInARequestTheFirstCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := newStore(t), &topic{}
		n := newNode(t, shared, sink, DefaultConfig())
		twin := event("one")
		twin.Name = "copy"
		require.Equal(t, []string{accepted, accepted, duplicate}, n.send(event("one"), event("two"), twin))
		require.Equal(t, []string{"one", "two"}, sink.kept())
		require.Equal(t, []string{duplicate, duplicate}, n.send(twin, event("one")))
		require.Equal(t, int64(3), n.count("duplicates_total"))

		for name, test := range map[string]struct {
			judge func(*events.Event)
			want  string
			pause time.Duration
		}{
			"failed":   {fail(events.ReasonUnavailable), "failed sink_unavailable", 0},
			"late":     {fail(events.ReasonTimeout), timedOut, DefaultConfig().Lease},
			"dropped":  {func(e *events.Event) { e.Drop(events.ReasonQuota) }, "dropped quota", 0},
			"rejected": {func(e *events.Event) { e.Reject(events.ReasonTooLarge, nil) }, "rejected event_too_large", 0},
		} {
			sink.then(test.judge)
			require.Equal(t, []string{test.want, test.want}, n.send(event(name), event(name)), name)
			time.Sleep(test.pause)
			require.Equal(t, []string{accepted, duplicate}, n.send(event(name), event(name)), name)
		}
	})
}

func TestEqualEventsWithoutAUUIDInARequestAreSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := newStore(t), &topic{}
		n := newNode(t, shared, sink, DefaultConfig())
		require.Equal(t, []string{accepted, accepted, accepted}, n.send(plain(), plain(), plain()))
		require.Equal(t, []string{duplicate, duplicate, duplicate}, n.send(plain(), plain(), plain()))
		require.Equal(t, []string{duplicate, duplicate, duplicate, accepted},
			n.send(plain(), plain(), plain(), plain()))
		require.Equal(t, []string{duplicate}, n.send(plain()))

		triple := DefaultConfig()
		triple.Identity = identityTriple
		n = newNode(t, newStore(t), sink, triple)
		require.Equal(t, []string{accepted, duplicate, duplicate}, n.send(plain(), plain(), plain()))
	})
}

func TestAnEventWithoutAnIdentityIsAlwaysKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := newStore(t), &topic{}
		n := newNode(t, shared, sink, DefaultConfig())
		bare := plain()
		bare.Raw.Timestamp = nil
		require.Equal(t, []string{accepted, accepted}, n.send(bare, bare))
		require.Equal(t, []string{accepted, accepted}, n.send(bare, event("one")))
		require.Len(t, sink.kept(), 4)
		require.Equal(t, int64(3), n.count("unidentified_total"))
	})
}

func TestEventsThatHaveEndedAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := newStore(t), &topic{}
		n := newNode(t, shared, sink, DefaultConfig())
		bad := event("one")
		bad.Reject(events.ReasonMissingName, nil)
		require.Equal(t, []string{"rejected missing_event_name", accepted}, n.send(bad, event("one")))
		require.Equal(t, []string{"rejected missing_event_name"}, n.send(bad))
	})
}

// flaky is a store that fails, or does other things, as the test says.
type flaky struct {
	store.Reserver

	mu      sync.Mutex
	err     error
	reserve func([]store.Claim)
	calls   int
	settled []string
}

func (f *flaky) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *flaky) Reserve(
	ctx context.Context, token string, owner store.Owner, digests []store.Digest, lease time.Duration,
	claims []store.Claim,
) error {
	f.mu.Lock()
	err, reserve := f.err, f.reserve
	f.calls++
	f.mu.Unlock()
	switch {
	case reserve != nil:
		reserve(claims)
		return nil
	case err != nil:
		return err
	default:
		return f.Reserver.Reserve(ctx, token, owner, digests, lease, claims)
	}
}

func (f *flaky) Settle(
	token string, owner store.Owner, commit []store.Digest, window time.Duration, release []store.Digest,
) {
	f.mu.Lock()
	f.settled = append(f.settled, fmt.Sprintf("%d committed for %s, %d released", len(commit), window, len(release)))
	f.mu.Unlock()
	f.Reserver.Settle(token, owner, commit, window, release)
}

func TestWithoutTheStoreTheConfigurationDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := &flaky{Reserver: newStore(t), err: fmt.Errorf("ask: %w", store.ErrUnavailable)}
		sink, config := &topic{}, DefaultConfig()
		n := newNode(t, away, sink, config)
		require.False(t, n.User().Closed())
		require.Equal(t, []string{accepted, accepted, duplicate}, n.send(event("one"), event("two"), event("two")))
		require.Equal(t, int64(2), n.count("open_admissions_total"))
		require.Equal(t, []string{"2 committed for 1h0m0s, 0 released"}, away.settled,
			"the store may be there again when the events are safe")
		require.Equal(t, 1, n.logs.FilterMessageSnippet("duplicates cannot be found").Len())
		require.Equal(t, 1, away.calls, "nobody asks twice")

		sink.then(fail(events.ReasonUnavailable))
		require.Equal(t, []string{"failed sink_unavailable"}, n.send(event("three")))
		require.Equal(t, "0 committed for 1h0m0s, 1 released", away.settled[1])

		away.settled = nil
		config.OnStoreFailure = store.FailClosed
		n = newNode(t, away, sink, config)
		require.True(t, n.User().Closed())
		bad := event("bad")
		bad.Reject(events.ReasonMissingName, nil)
		bare := plain()
		bare.Raw.Timestamp = nil
		batch := &events.Batch{Token: "phc_a", Events: []events.Event{event("four"), bad, bare, event("five")}}
		n.Process(t.Context(), batch)
		require.Equal(t, []string{
			"failed store_unavailable", "rejected missing_event_name", accepted, "failed store_unavailable",
		}, outcomes(batch))
		require.Equal(t, events.Unavailable, events.CodeOf(batch.Events[0].Outcome.Err))
		require.Equal(t, int64(2), n.count("refused_total"))
		require.Equal(t, []string{"0 committed for 1h0m0s, 2 released"}, away.settled,
			"the store may have reserved them all the same")

		away.set(nil)
		require.Equal(t, []string{accepted, duplicate}, n.send(event("four"), event("one")))
		require.Equal(t, 1, n.logs.FilterMessage("duplicates are found again").Len())
	})
}

// That another request is handling an event is known, even if the store is away a moment later.
func TestABusyEventIsNotAdmittedWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := newStore(t), &topic{}
		faulty := &flaky{Reserver: shared}
		a, b := newNode(t, shared, sink, DefaultConfig()), newNode(t, faulty, sink, DefaultConfig())
		judge, release := hold(nil)
		sink.then(judge)
		first := started(func() []string { return a.send(event("one")) })
		synctest.Wait()
		second := started(func() []string { return b.send(event("one")) })
		time.Sleep(10 * time.Millisecond)
		faulty.set(store.ErrUnavailable)
		require.Equal(t, []string{inFlight}, second())
		release()
		require.Equal(t, []string{accepted}, first())
		require.Equal(t, []string{"one"}, sink.kept())
	})
}

// A store that is away for a moment does not end a wait.
func TestAWaitGoesOnWhenTheStoreIsAwayForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := newStore(t), &topic{}
		faulty := &flaky{Reserver: shared}
		a, b := newNode(t, shared, sink, DefaultConfig()), newNode(t, faulty, sink, DefaultConfig())
		judge, release := hold(nil)
		sink.then(judge)
		first := started(func() []string { return a.send(event("one")) })
		synctest.Wait()
		second := started(func() []string { return b.send(event("one")) })
		time.Sleep(10 * time.Millisecond)
		faulty.set(store.ErrUnavailable)
		time.Sleep(200 * time.Millisecond)
		faulty.set(nil)
		release()
		require.Equal(t, []string{accepted}, first())
		require.Equal(t, []string{duplicate}, second())
	})
}

// What is known already is not settled again: a duplicate does not prolong the window.
func TestOnlyWhatARequestHasReservedIsSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, sink := &flaky{Reserver: newStore(t)}, &topic{}
		n := newNode(t, shared, sink, DefaultConfig())
		require.Equal(t, []string{accepted}, n.send(event("one")))
		require.Equal(t, []string{duplicate, accepted}, n.send(event("one"), event("two")))
		require.Equal(t, []string{duplicate}, n.send(event("one")))
		require.Equal(t, []string{"1 committed for 1h0m0s, 0 released", "1 committed for 1h0m0s, 0 released"},
			shared.settled)
	})
}

func TestWithoutAWindowNothingIsDone(t *testing.T) {
	shared := &flaky{err: store.ErrUnavailable}
	config := DefaultConfig()
	config.Window = 0
	n := newNode(t, shared, &topic{}, config)
	require.Equal(t, []string{accepted, accepted}, n.send(event("one"), event("one")))
	require.Zero(t, shared.calls)
	require.Empty(t, shared.settled)
	require.False(t, n.User().Closed())
	batch := &events.Batch{Token: "phc_a", Events: []events.Event{event("one")}}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		settle, err := n.Stage.Process(context.Background(), batch)
		require.Nil(t, settle)
		require.NoError(t, err)
	}))

	config.OnStoreFailure = store.FailClosed
	require.False(t, newNode(t, shared, &topic{}, config).User().Closed())
}

// ready is a store that knows nothing and costs nothing.
type ready struct{}

func (ready) Reserve(
	_ context.Context, _ string, _ store.Owner, _ []store.Digest, _ time.Duration, claims []store.Claim,
) error {
	for i := range claims {
		claims[i] = store.Reserved
	}
	return nil
}

func (ready) Settle(string, store.Owner, []store.Digest, time.Duration, []store.Digest) {}

// batchOf returns a batch of n events, each with a uuid.
func batchOf(n int) *events.Batch {
	batch := &events.Batch{Token: "phc_a", Events: make([]events.Event, n)}
	for i := range batch.Events {
		batch.Events[i] = event(fmt.Sprint(i))
	}
	return batch
}

func process(s *Stage, batch *events.Batch) {
	settle, _ := s.Process(context.Background(), batch)
	for i := range batch.Events {
		batch.Events[i].Accept()
	}
	settle(context.Background(), batch)
	for i := range batch.Events {
		batch.Events[i].Outcome = events.Outcome{}
	}
}

func TestARequestCostsNoAllocation(t *testing.T) {
	s := newNode(t, ready{}, &topic{}, DefaultConfig()).Stage
	for _, n := range []int{1, 50} {
		batch := batchOf(n)
		// With the race detector, a pool forgets one thing in four.
		least := math.Inf(1)
		for range 100 {
			least = min(least, testing.AllocsPerRun(1, func() { process(s, batch) }))
		}
		require.Zero(t, least, n)
	}
}

// BenchmarkStage is the stage without its store.
func BenchmarkStage(b *testing.B) {
	for _, n := range []int{1, 50} {
		b.Run(fmt.Sprintf("%d events", n), func(b *testing.B) {
			s, err := NewStage(configs.Fixed(DefaultConfig()), ready{}, zap.NewNop(), tally.NoopScope)
			require.NoError(b, err)
			batch := batchOf(n)
			b.ReportAllocs()
			for b.Loop() {
				process(s, batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/event")
		})
	}
}
