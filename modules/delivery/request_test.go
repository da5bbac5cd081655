package delivery

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery/encode"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
)

// requestOf makes a request of messages for the main topic, in mode auto, and hands them to the producer.
func requestOf(d *Delivery, values ...string) *request {
	r := d.requests.get(d, d.terms.Now())
	messages := make([]produce.Message, len(values))
	for i, value := range values {
		messages[i] = produce.Message{Topic: "main", Key: []byte("user"), Value: []byte(value)}
	}
	r.fill(messages)
	r.uses[0].mode, r.uses[0].plan = modeAuto, planProduce
	r.produce(planProduce)
	return r
}

func requireAtRest(t *testing.T, d *Delivery) {
	t.Helper()
	eventually(t, func() bool { return !d.waits() && d.Waiting() == 0 }, "the topics wait for ever")
	for _, topic := range d.all() {
		if s := topic.spooler.Load(); s != nil {
			s.mu.Lock()
			require.Zero(t, s.held)
			require.Zero(t, s.appending)
			require.Empty(t, s.reports)
			s.mu.Unlock()
		}
	}
	eventually(t, func() bool { return HasRoom(d, int64(d.cfg.Buffer)) }, "the whole buffer is free")
}

// The report on a late message comes after the owner has found it late, and before its record is built.
func TestAReportBetweenTwoLooksAtAMessageIsSettledOnce(t *testing.T) {
	t.Parallel()
	for name, verdict := range map[string]error{"acknowledged": nil, "failed": errAway, "refused": errRefused} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newScript(t)
			d, _ := begin(t, scriptConfig(t, modeAuto), k)
			k.hold()
			r := requestOf(d, "a")
			r.append(t.Context(), func(u *use, it *item) bool {
				late := u.isLate(it)
				k.set(func() {
					k.judge = func(m *produce.Message) error {
						if m.Topic == "main" {
							return verdict
						}
						return nil
					}
				})
				k.release()
				return late
			})
			want := fateSpool
			if verdict == nil {
				want = fateKafka
			}
			require.Equal(t, want, r.items[0].fate)
			r.leave()
			k.back()
			requireAtRest(t, d)
			require.Len(t, k.stored, 1, "it arrived, once, here or among the dead letters")
		})
	}
}

// The report comes when the record is on the disk, and before the owner has noted that.
func TestAReportDuringAnAppendIsSettledOnce(t *testing.T) {
	t.Parallel()
	for _, verdict := range []error{nil, errAway} {
		t.Run(fmt.Sprint(verdict), func(t *testing.T) {
			t.Parallel()
			k := newScript(t)
			d, _ := begin(t, scriptConfig(t, modeAuto), k)
			k.hold()
			r := requestOf(d, "a", "b")
			m := &r.messages[0]
			g := &group{indexes: []int{0}, held: 1, records: [][]byte{appendRecord(nil, m, time.Now())}}
			s, first, err := d.appendTo(t.Context(), r.uses[0].topic, g, false)
			require.NoError(t, err)
			require.True(t, r.uses[0].isWaiting())
			k.always(verdict)
			k.release()
			r.spooled(s, first, g.indexes)
			require.EqualValues(t, 2, r.users.Load()-r.awaited.Load()+1, "the owner, and nothing that is awaited")
			r.leave()
			k.back()
			requireAtRest(t, d)
			k.set(func() {
				require.Equal(t, "a", string(k.stored[0].Value))
				require.Len(t, k.stored, map[bool]int{true: 2, false: 1}[verdict == nil], "b was not spooled")
			})
		})
	}
}

func TestAStaleTickOfAnEarlierUseEndsNoWait(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	d, _ := begin(t, scriptConfig(t, modeAuto), k)
	k.hold()
	r := requestOf(d, "a")
	r.reported <- struct{}{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.wait(context.Background(), patience)
		assert.Zero(t, r.awaited.Load())
	}()
	eventually(t, func() bool { return len(r.reported) == 0 }, "the tick is taken")
	select {
	case <-ended:
		t.Fatal("the request does not wait")
	default:
	}
	k.release()
	<-ended
	r.leave()
	requireAtRest(t, d)
}

func TestOneSideEndsAMessage(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	d, _ := begin(t, scriptConfig(t, modeAuto), k)
	for range 200 {
		r := requestOf(d, "a", "b")
		abandoned := 0
		for i := range r.items {
			if r.abandon(&r.items[i]) {
				abandoned++
				require.Equal(t, stateAbandoned, r.items[i].state.Load())
			} else {
				require.Equal(t, stateReported, r.items[i].state.Load())
			}
			require.False(t, r.abandon(&r.items[i]))
		}
		require.Zero(t, r.awaited.Load())
		r.leave()
	}
	require.NoError(t, k.Flush(t.Context()))
	requireAtRest(t, d)
}

// The producer reports after the answer. The event's Late knows then how it has ended.
func TestAnEventThatHasTimedOutTellsItsEndLater(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		verdict error
		safe    bool
	}{"acknowledged": {nil, true}, "failed": {errAway, false}, "refused": {errRefused, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newScript(t)
			cfg := scriptConfig(t, modeKafka)
			cfg.Timeout = time.Millisecond
			d, _ := begin(t, cfg, k)
			k.hold()
			batch := write(t, d, "a", "b")
			told := make(chan bool, 2)
			for i := range batch.Events {
				require.Equal(t, events.ReasonTimeout, batch.Events[i].Outcome.Reason)
				batch.Events[i].Outcome.Late.Then(func(safe bool) { told <- safe })
			}
			require.NotSame(t, batch.Events[0].Outcome.Late, batch.Events[1].Outcome.Late)
			require.Empty(t, told)
			k.set(func() { k.judge = func(*produce.Message) error { return test.verdict } })
			k.release()
			require.Equal(t, test.safe, <-told)
			require.Equal(t, test.safe, <-told)
			k.back()
			requireAtRest(t, d)
		})
	}
}

// An event with a heatmap is two messages. It is safe when both are.
func TestTheLateEndOfAnEventIsThatOfAllItsMessages(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		hold          []string
		event, second error // the reports on its messages
		late, safe    bool
	}{
		"both are late":                         {nil, nil, nil, true, true},
		"one is late":                           {[]string{"heatmaps"}, nil, nil, true, true},
		"one is late and fails":                 {[]string{"heatmaps"}, nil, errAway, true, false},
		"one is late, the other one has failed": {[]string{"heatmaps"}, errAway, nil, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newScript(t)
			cfg := scriptConfig(t, modeKafka)
			cfg.Timeout = time.Second
			d, _ := begin(t, cfg, k)
			k.set(func() {
				k.judge = func(m *produce.Message) error {
					if m.Topic == "heatmaps" {
						return test.second
					}
					return test.event
				}
			})
			k.hold(test.hold...)
			batch := batchOf(events.LaneMain, "user", "a")
			batch.Events[0].Heatmap = []byte(`{"$heatmap_data":{}}`)
			d.Write(t.Context(), batch)
			outcome := batch.Events[0].Outcome
			require.Equal(t, events.StateFailed, outcome.State)
			require.Equal(t, test.late, outcome.Late != nil, "%v", outcome.Err)
			told := make(chan bool, 1)
			if test.late {
				outcome.Late.Then(func(safe bool) { told <- safe })
				require.Empty(t, told)
			}
			k.release()
			if test.late {
				require.Equal(t, test.safe, <-told)
			}
			k.back()
			requireAtRest(t, d)
		})
	}
}

// Reports come while the owner stops waiting for them. Every event has its end, now or later.
func TestAReportBesideTheEndOfTheWaitIsToldOnce(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	cfg := scriptConfig(t, modeKafka)
	cfg.Timeout = 50 * time.Microsecond
	d, _ := begin(t, cfg, k)
	for range 300 {
		batch := batchOf(events.LaneMain, "user", "a", "b", "c")
		d.Write(t.Context(), batch)
		for i := range batch.Events {
			switch outcome := batch.Events[i].Outcome; {
			case outcome.State == events.StateAccepted:
			case outcome.Late != nil:
				told := make(chan bool, 2)
				outcome.Late.Then(func(safe bool) { told <- safe })
				require.True(t, <-told)
				require.Empty(t, told)
			default:
				require.Equal(t, events.StateFailed, outcome.State, "the breaker is open")
			}
		}
	}
	require.NoError(t, k.Flush(t.Context()))
	requireAtRest(t, d)
}

// Requests come and go while the producer holds messages of requests that are over. script checks that these messages
// do not change.
func TestTheMemoryOfARequestIsLeftAloneWhileTheProducerHasIt(t *testing.T) {
	t.Parallel()
	for _, m := range []mode{modeMemory, modeAuto, modeKafka} {
		t.Run(m.String(), func(t *testing.T) {
			t.Parallel()
			k := newScript(t)
			cfg := scriptConfig(t, m)
			cfg.SpoolAfter, cfg.Timeout = time.Millisecond, 2*time.Millisecond
			d, _ := begin(t, cfg, k)
			for round := range 5 {
				k.hold()
				var writers sync.WaitGroup
				for i := range 4 {
					writers.Go(func() {
						for range 5 {
							d.Write(context.Background(),
								batchOf(events.LaneMain, "user", strings.Repeat(fmt.Sprint(i), 1+10*round), "second"))
						}
					})
				}
				writers.Wait()
				k.release()
			}
			eventually(t, func() bool { return k.held() == 0 && k.running.Load() == 0 })
			requireAtRest(t, d)
		})
	}
}

// The spool has no room for a late message. The producer still has it, and it is no longer held when its report comes.
func TestARefusedAppendReleasesWhatItHeld(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	cfg := scriptConfig(t, modeAuto)
	cfg.Spool.SegmentBytes, cfg.Spool.MaxBytes = 2000, 4000
	d, _ := begin(t, cfg, k)
	k.hold()
	ended := make(chan *events.Batch)
	go func() {
		batch := batchOf(events.LaneMain, "user", "large")
		batch.Events[0].Raw.Properties = []byte(`{"pad":"` + strings.Repeat("x", 5000) + `"}`)
		d.Write(context.Background(), batch)
		ended <- batch
	}()
	eventually(t, func() bool { return d.spooling.usage().Full }, "the spool has refused it")
	k.release()
	requireSafe(t, <-ended, events.AckKafka)
	k.always(errAway)
	requireSafe(t, write(t, d, "b"), events.AckSpool)
	k.back()
	requireAtRest(t, d)
	require.Equal(t, []string{"large", "b"}, k.names("main"))
}

// A dead letter is late: the request ends while the producer has the letter.
func TestALateDeadLetterIsWrittenOnce(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	d, _ := begin(t, scriptConfig(t, modeKafka), k)
	k.set(func() {
		k.judge = func(m *produce.Message) error {
			if m.Topic == "main" {
				return errRefused
			}
			return nil
		}
	})
	const rounds = 20
	for i := range rounds {
		k.hold("dead")
		requireSafe(t, write(t, d, fmt.Sprint(i)), events.AckSpool)
		require.False(t, HasRoom(d, int64(d.cfg.Buffer)),
			"the producer has the letter, and with it the request's memory")
		requireSafe(t, write(t, d, "another that could take that memory"), events.AckSpool)
		k.release()
		requireAtRest(t, d)
	}
	require.Len(t, k.names("dead"), 2*rounds)
}

func TestTheSpoolThatOpensWhileItsFailureIsReadIsNoAccident(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	d := newScripted(t, scriptConfig(t, modeAuto), k, tally.NoopScope)
	defer d.cancel()
	require.ErrorIs(t, d.spooling.usable(), errNoSpool)
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for d.spooling.usable() != nil {
				_, _ = d.spooling.spooler(d.topic("main"))
			}
		})
	}
	require.NoError(t, d.spooling.open())
	readers.Wait()
	require.Error(t, *d.spooling.failure.Load(), "whoever saw the spool closed reads this")
	require.NoError(t, d.Stop(t.Context()))
}

func TestARequestWaitsForTheBufferAndForKafkaNoLongerThanItsTimeoutTogether(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	cfg := scriptConfig(t, modeKafka)
	d, _ := begin(t, cfg, k)
	require.NoError(t, d.buffer.Acquire(t.Context(), int64(cfg.Buffer)))
	before := time.Now()
	taken := make(chan *request)
	go func() {
		r, err := d.encode(context.Background(), batchOf(events.LaneMain, "user", "a"), new(encode.Cursor),
			d.terms.Now())
		assert.NoError(t, err)
		taken <- r
	}()
	eventually(t, func() bool { return time.Since(before) > 5*time.Millisecond })
	released := time.Now()
	d.buffer.Release(int64(cfg.Buffer))
	r := <-taken
	require.True(t, r.started.Before(released))
	r.leave()
	requireAtRest(t, d)
}

// Another request is about to add a record. It runs at the same time, and nobody knows whether its append will succeed.
func TestAFullSpoolLetsEventsPassThatNothingIsInFrontOf(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	cfg := scriptConfig(t, modeSpool)
	cfg.Spool.SegmentBytes, cfg.Spool.MaxBytes = 100, 100
	d, _ := begin(t, cfg, k)
	requireSafe(t, write(t, d, "a"), events.AckKafka)
	s := d.topic("main").spooler.Load()
	s.begin(0)
	requireSafe(t, write(t, d, "b"), events.AckKafka)
	s.end(0)
	requireAtRest(t, d)
}

// gate is a timer that keeps a commit of the spool from ending.
type gate struct {
	tally.Timer
	reached, opened chan struct{}
}

func (g *gate) Record(time.Duration) {
	select {
	case g.reached <- struct{}{}:
	default:
	}
	<-g.opened
}

// The client leaves while the disk is slow. Its event may become durable, and is then in front of later events.
func TestARecordWhoseRequestGaveUpIsNotOvertaken(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	d := newScripted(t, scriptConfig(t, modeSpool), k, tally.NoopScope)
	slow := &gate{reached: make(chan struct{}, 1), opened: make(chan struct{})}
	d.metrics.synced = slow
	require.NoError(t, d.Start(t.Context()))
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan *events.Batch)
	go func() {
		batch := batchOf(events.LaneMain, "user", "gone")
		d.Write(ctx, batch)
		left <- batch
	}()
	<-slow.reached
	leave()
	batch := <-left
	require.Equal(t, events.StateFailed, batch.Events[0].Outcome.State)
	require.True(t, d.topic("main").isWaiting())
	behind := make(chan *events.Batch)
	go func() {
		batch := batchOf(events.LaneMain, "user", "behind")
		d.Write(context.Background(), batch)
		behind <- batch
	}()
	close(slow.opened)
	requireSafe(t, <-behind, events.AckSpool)
	requireAtRest(t, d)
	require.Equal(t, []string{"gone", "behind"}, k.names("main"))
	require.NoError(t, d.Stop(t.Context()))
}

// The messages of 20 000 events take twenty times the buffer.
func TestABatchThatIsLargerThanTheBufferIsWrittenInPortions(t *testing.T) {
	t.Parallel()
	for _, ack := range []mode{modeKafka, modeSpool} {
		k := newScript(t)
		cfg := scriptConfig(t, ack)
		cfg.Buffer, cfg.Timeout = configs.MiB, time.Minute
		d, _ := begin(t, cfg, k)
		names := make([]string, 20_000)
		for i := range names {
			names[i] = fmt.Sprint(i)
		}
		batch := batchOf(events.LaneMain, "user", names...)
		require.Greater(t, d.encoder.Bound(batch, encode.Cursor{}, math.MaxInt64), 10*int64(cfg.Buffer))
		d.Write(t.Context(), batch)
		requireSafe(t, batch, acks[map[mode]fate{modeKafka: fateKafka, modeSpool: fateSpool}[ack]])
		eventually(t, func() bool { return len(k.names("main")) == len(names) })
		require.Equal(t, names, k.names("main"), "in their order")
		eventually(t, func() bool { return HasRoom(d, int64(cfg.Buffer)) })
	}
}

// A recording is one event. It is safe when its last part is, and fails with the first part that fails.
func TestARecordingThatIsLargerThanTheBufferIsWrittenInPortions(t *testing.T) {
	t.Parallel()
	k := newScript(t)
	cfg := scriptConfig(t, modeKafka)
	cfg.Buffer = 4 * configs.MiB
	d, _ := begin(t, cfg, k)
	recording := func() *events.Batch {
		batch := batchOf(events.LaneRecordings, "user", "$snapshot_items")
		batch.Events[0].SessionID = "s"
		batch.Events[0].Recording = &events.Recording{WindowID: []byte(`"w"`), Source: "web", Lib: "web"}
		for range 300 {
			batch.Events[0].Recording.Items = append(batch.Events[0].Recording.Items,
				events.Snapshot{JSON: []byte(`"` + strings.Repeat("x", 100_000) + `"`)})
		}
		return batch
	}
	batch := recording()
	d.Write(t.Context(), batch)
	requireSafe(t, batch, events.AckKafka)
	eventually(t, func() bool { return HasRoom(d, int64(cfg.Buffer)) })

	k.always(produce.Errorf(produce.Unavailable, "away"))
	batch = recording()
	d.Write(t.Context(), batch)
	require.Equal(t, events.StateFailed, batch.Events[0].Outcome.State)
	eventually(t, func() bool { return HasRoom(d, int64(cfg.Buffer)) })
}
