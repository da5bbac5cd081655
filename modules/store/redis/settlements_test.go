package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/store"
)

func TestSettlementsAreGroupedByTokenAndGivenUpWithTheirLeases(t *testing.T) {
	t.Parallel()
	q := &queue{most: 1 << 20}
	s := newSettlements(q)
	now := time.Now()
	d := make([]store.Digest, 700)
	require.True(t, s.add("a", 0xff, d[:600], time.Hour, d[600:], now.Add(time.Minute)))
	require.False(t, s.add("a", 1, d[:1], time.Hour, nil, now.Add(time.Minute)))
	s.add("b", 1, d[:1], time.Hour, nil, now.Add(2*time.Minute))
	require.Equal(t, 702, s.waiting())

	groups := s.take(1)
	require.Len(t, groups, 1, "the oldest")
	require.Equal(t, together, groups[0].digests())
	require.Len(t, groups[0].done, together*digestBytes)
	s.putBack(groups)
	require.Equal(t, 702, s.waiting())

	all := s.take(10_000)
	require.Zero(t, s.waiting())
	released := 0
	for _, g := range all {
		require.LessOrEqual(t, g.digests(), together)
		released += len(g.released) / (ownerBytes + digestBytes)
		if len(g.released) > 0 {
			require.Equal(t, "00000000000000ff", string(g.released[:ownerBytes]))
		}
	}
	require.Equal(t, 100, released)
	require.EqualValues(t, 702, q.digests.Load())
	s.putBack(all)
	s.expire(now.Add(90 * time.Second))
	require.Equal(t, 1, s.waiting())
	require.EqualValues(t, 701, q.givenUp.Load())
	q.told(s.take(1))
	require.Zero(t, q.digests.Load())
	require.Zero(t, q.bytes.Load(), "nothing is left in the account")
}

// docs/deduplication.md says that the default of 16 MiB holds about a million.
func TestHowManyEndsFindRoom(t *testing.T) {
	t.Parallel()
	q := &queue{most: 16 << 20}
	s := newSettlements(q)
	d := make([]store.Digest, 50)
	for i := 0; q.givenUp.Load() == 0; i++ {
		s.add(strconv.Itoa(i%1000), 1, d, time.Hour, nil, time.Now().Add(time.Hour))
	}
	require.InDelta(t, 1_000_000, q.digests.Load(), 100_000)
}

func TestWhatIsDoneIsToldForLongerThanWhatIsReleased(t *testing.T) {
	t.Parallel()
	require.Equal(t, time.Minute, worthFor(time.Minute, 24*time.Hour, 0))
	require.Equal(t, 3*time.Hour, worthFor(time.Minute, 24*time.Hour, 1))
	require.Equal(t, time.Minute, worthFor(time.Minute, 2*time.Minute, 1))
}

func TestTheBreakerOpensAfterFailuresInARow(t *testing.T) {
	t.Parallel()
	var b breaker
	problem := errors.New("no answer")
	require.False(t, b.failed(problem, 2))
	b.succeeded()
	require.False(t, b.failed(problem, 2))
	require.NoError(t, b.err())
	require.True(t, b.failed(problem, 2))
	require.ErrorIs(t, b.err(), store.ErrUnavailable)
	require.ErrorIs(t, b.err(), problem)
	require.False(t, b.failed(problem, 2), "it is open already")
	b.close()
	require.NoError(t, b.err())
	require.False(t, b.failed(problem, 2), "the failures of the past are past")
}

func TestACallThatHasWaitedTooLongWaitsForNoOther(t *testing.T) {
	t.Parallel()
	now, timeout := time.Now(), 40*time.Millisecond
	called := func(ago time.Duration, weight int) *call {
		return &call{weight: weight, started: now.Add(-ago), wake: make(chan verdict, 1)}
	}
	late, later := called(35*time.Millisecond, heavy), called(31*time.Millisecond, heavy)
	first, second, large := called(30*time.Millisecond, heavy-1), called(0, 1), called(0, 2*heavy)
	l := &lane{queue: []*call{late, later, first, second, large}}

	batch, isLate := l.board(now, timeout)
	require.Equal(t, []*call{late, later}, batch, "they end before the others travel")
	require.True(t, isLate)
	batch, isLate = l.board(now, timeout)
	require.Equal(t, []*call{first, second}, batch, "no more than a round trip carries")
	require.False(t, isLate)
	batch, isLate = l.board(now, timeout)
	require.Equal(t, []*call{large}, batch, "a call may be larger than that")
	require.False(t, isLate)
	require.Empty(t, l.queue)
}

// A call that waits behind a round trip that has opened the breaker makes no round trip of its own.
func TestAllThatWaitEndWithTheRoundTripThatOpensTheBreaker(t *testing.T) {
	t.Parallel()
	behind := []*call{{wake: make(chan verdict, 1)}, {wake: make(chan verdict, 1)}}
	l := &lane{queue: append([]*call(nil), behind...), busy: true}
	require.True(t, l.breaker.failed(errors.New("no answer"), 1))
	leader := &call{}
	l.leave(leader, []*call{leader})
	for _, c := range behind {
		require.Equal(t, ended, <-c.wake)
		require.ErrorContains(t, c.err, "the breaker is open")
	}
	require.False(t, l.busy)

	l.breaker.close()
	next := &call{wake: make(chan verdict, 1)}
	l.queue, l.busy = append(l.queue, next), true
	l.leave(leader, []*call{leader})
	require.Equal(t, lead, <-next.wake, "with the breaker closed, the next one travels")
	require.True(t, l.busy)
}

func TestTheClockKeepsTheBetterReading(t *testing.T) {
	t.Parallel()
	var c clock
	now := time.Now()
	read := func(at time.Time, took, offset time.Duration) {
		server := at.Add(took / 2).Add(offset)
		c.learn(at, at.Add(took), server.Unix(), int64(server.Nanosecond()/1000))
	}
	require.WithinDuration(t, time.Now(), c.now(), time.Second)
	read(now, time.Millisecond, 2*time.Second)
	require.InDelta(t, 2*time.Second, c.known.Load().offset, float64(time.Millisecond))
	read(now.Add(time.Second), 40*time.Millisecond, 2*time.Second+10*time.Millisecond)
	require.InDelta(t, 2*time.Second, c.known.Load().offset, float64(time.Millisecond), "that says less")
	read(now.Add(2*time.Second), 40*time.Millisecond, time.Minute)
	require.InDelta(t, time.Minute, c.known.Load().offset, float64(time.Millisecond), "the clock was set")
}

func TestAnAnswerSaysWhatBecomesOfACommand(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]fate{
		"NOSCRIPT No matching script. Please use EVAL.":                                      unknown,
		"MOVED 3999 127.0.0.1:6381":                                                          moved,
		"ASK 3999 127.0.0.1:6381":                                                            moved,
		"LOADING Redis is loading the dataset in memory":                                     away,
		"READONLY You can't write against a read only replica. script: abc, on @user_script": away,
		"OOM command not allowed when used memory > 'maxmemory'.":                            away,
		"WRONGPASS invalid username-password pair":                                           away,
		"WRONGTYPE Operation against a key holding the wrong kind of value":                  wrong,
		"ERR user_script:1: Script attempted to access a non local key":                      wrong,
	} {
		require.Equal(t, want, fateOf(reply(text)), text)
	}
	require.Equal(t, away, fateOf(errors.New("EOF")))
	require.Equal(t, fine, fateOf(nil))
}

// reply is an answer of Redis that is an error.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

// A call that was left when its context ended may be sent later. Calls that begin meanwhile leave its arguments alone.
func TestACallThatWasLeftKeepsItsArguments(t *testing.T) {
	t.Parallel()
	cfg := store.DefaultConfig()
	cfg.Redis.Addrs, cfg.Timeout = []string{"127.0.0.1:1"}, 2*time.Hour
	s, err := New(store.Parts{Config: cfg, Live: configs.Fixed(cfg), Log: zap.NewNop(), Scope: tally.NoopScope})
	require.NoError(t, err)
	l := &s.servers.all()[0].lanes[0]
	l.busy = true // with a round trip that does not end
	queued := func() []*call {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.Clone(l.queue)
	}
	const n = 64
	for i := range n {
		ctx, leave := context.WithTimeout(t.Context(), time.Hour)
		left := make(chan error, 1)
		go func() {
			d := []store.Digest{{byte(i)}}
			left <- s.Reserve(ctx, strconv.Itoa(i), store.Owner(i), d, time.Hour, make([]store.Claim, 1))
		}()
		require.Eventually(t, func() bool { return len(queued()) > i }, time.Minute, time.Millisecond)
		leave()
		require.ErrorIs(t, <-left, context.Canceled)
	}
	for i, c := range queued() {
		args := c.ops[0].cmd.Args()
		require.Equal(t, s.keys.digests(strconv.Itoa(i)), *args[3].(*string))
		require.Equal(t, fmt.Sprintf("%016x", i), string(*args[4].(*bytes)))
		require.Equal(t, store.Digest{byte(i)}, store.Digest(*args[6].(*bytes)))
		c.wake <- ended
	}
	s.group.Wait()
	require.NoError(t, s.client.Close())
}
