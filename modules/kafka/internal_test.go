package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/kafka/batch"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/produce"
)

// unconnected returns a core that has a client and no goroutines, and its topic "topic" with that many partitions.
func unconnected(t *testing.T, client sarama.Client, partitions int) (*core, *topic) {
	t.Helper()
	m := &metrics{
		latency: tally.NoopScope.Timer(""), acked: tally.NoopScope.Counter(""), bytes: tally.NoopScope.Counter(""),
		buffered: tally.NoopScope.Gauge(""),
	}
	for range produce.Classes() {
		m.failed = append(m.failed, tally.NoopScope.Counter(""))
	}
	causes := observability.NewCauses(zap.NewNop(), "", "", time.Minute)
	c := newCore(coreConfig{maxBatch: 1 << 20, ackTimeout: time.Minute}, zap.NewNop(), causes, m)
	c.client, c.id = client, batch.Producer{ID: 7}
	topic := c.topic("topic")
	c.resize(topic, partitions)
	return c, topic
}

// stub is a client without any answers.
type stub struct{ sarama.Client }

func TestAQueueKeepsItsOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var q queue
	var model []int
	next := 0
	for range 20_000 {
		switch random.IntN(4) {
		case 0, 1:
			for range random.IntN(20) {
				q.push(entry{index: next, size: 1 + next%7})
				model = append(model, next)
				next++
			}
		case 2:
			bytes, most := random.IntN(200), random.IntN(60)
			taken := q.shift(nil, bytes, most)
			require.LessOrEqual(t, len(taken), most)
			sum := 0
			for i, e := range taken {
				require.Equal(t, model[i], e.index)
				require.True(t, i == 0 || sum+e.size <= bytes)
				sum += e.size
			}
			if len(taken) < min(most, len(model)) {
				require.NotEmpty(t, taken, "one at least")
				require.Greater(t, sum+1+model[len(taken)]%7, bytes, "as many as there is room for")
			}
			model = model[len(taken):]
			if back := random.IntN(1 + len(taken)); back > 0 {
				front := taken[len(taken)-back:]
				q.unshift(front)
				again := make([]int, 0, back+len(model))
				for _, e := range front {
					again = append(again, e.index)
				}
				model = append(again, model...)
			}
		default:
			q.shift(nil, q.bytes, q.len()/2)
			model = model[(len(model))/2:]
		}
		require.Equal(t, len(model), q.len())
		bytes := 0
		for i, e := range q.entries[q.head:] {
			require.Equal(t, model[i], e.index)
			bytes += e.size
		}
		require.Equal(t, bytes, q.bytes)
	}
}

func TestAQueueGivesUpTheMemoryOfARush(t *testing.T) {
	t.Parallel()
	var q queue
	for range 100_000 {
		q.push(entry{size: 1})
	}
	require.Len(t, q.shift(nil, q.bytes, q.len()), 100_000)
	require.Zero(t, cap(q.entries))
	for range 1_000_000 { // a queue that is never empty does not grow
		q.push(entry{size: 1})
		q.push(entry{size: 1})
		q.shift(nil, 2, q.len()-1)
	}
	require.Less(t, cap(q.entries), 4096)
}

func TestTheMemoryOfALargeFailureIsNotKept(t *testing.T) {
	t.Parallel()
	c, topic := unconnected(t, stub{}, 1)
	list := make([]produce.Message, 100_000)
	for i := range list {
		list[i].Topic = "topic"
	}
	c.produce(list, func(int, error) {})
	c.mu.Lock()
	c.giveUp(topic.partitions[0], produce.Unavailable, errors.New("for a test"))
	c.unlock()
	require.Zero(t, c.unreported)
	require.Zero(t, c.buffered)
	for _, memory := range c.freeBatches {
		require.LessOrEqual(t, cap(memory), 4096)
	}
}

func TestAnEpochThatIsTheLastIsFollowedByAnotherID(t *testing.T) {
	t.Parallel()
	c, _ := unconnected(t, stub{}, 1)
	c.id.Epoch = math.MaxInt16 - 1
	c.renewEpoch()
	require.Equal(t, batch.Producer{ID: 7, Epoch: math.MaxInt16}, c.id)
	c.renewEpoch()
	require.Equal(t, batch.NoProducer, c.id)
	require.Len(t, c.resolve, 1, "the cluster is asked")
	c.renewEpoch()
	require.Equal(t, batch.NoProducer, c.id)
}

// A partition that comes back begins at number 0 again. Kafka must not take its next batch for a copy of its first.
func TestAPartitionThatComesBackHasNumbersOfAnotherEpoch(t *testing.T) {
	t.Parallel()
	c, topic := unconnected(t, stub{}, 3)
	before := c.id
	c.resize(topic, 5)
	require.Equal(t, before, c.id)
	c.resize(topic, 2)
	c.resize(topic, 3)
	require.NotEqual(t, before, c.id)
}

// hanging is a client that takes a question and keeps the answer back.
type hanging struct {
	sarama.Client
	asked, answer chan struct{}
}

func (h hanging) Topics() ([]string, error) {
	close(h.asked)
	<-h.answer
	return nil, sarama.ErrClosedClient
}

func TestNobodyWaitsWhileTheClusterIsAsked(t *testing.T) {
	t.Parallel()
	client := hanging{asked: make(chan struct{}), answer: make(chan struct{})}
	c, _ := unconnected(t, client, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.recount(client)
	}()
	<-client.asked
	c.produce([]produce.Message{{Topic: "topic"}}, func(int, error) {})
	close(client.answer)
	<-done
	c.close()
}

// A partition is ready for a link while the client is swapped and the link waits for an answer. The partition is not
// forgotten, and the link of the old client does not send it later.
func TestWhatIsReadyLeavesALinkOfAClientThatWasReplaced(t *testing.T) {
	t.Parallel()
	c, topic := unconnected(t, stub{}, 1)
	old, p := &link{core: c, inFlight: true}, topic.partitions[0]
	old.work = sync.NewCond(&c.mu)
	c.links[1], p.link = old, old
	c.produce([]produce.Message{{Topic: "topic"}}, func(int, error) {})
	require.Equal(t, ready, p.state)
	c.setClient(stub{}, nil)
	require.Equal(t, parked, p.state)
	require.Empty(t, old.ready)
	require.True(t, old.closed)
	c.close()
}

// A later attempt that has certainly not been appended says nothing about an earlier one.
func TestABatchStaysUnsureUntilItIsSettled(t *testing.T) {
	t.Parallel()
	c, topic := unconnected(t, stub{}, 1)
	p := topic.partitions[0]
	message := produce.Message{Topic: "topic"}
	p.waiting.push(entry{message: &message, report: func(int, error) {}, at: time.Now()})
	now := time.Now()
	c.mu.Lock()
	c.cutBatch(p, now)
	before := p.numbering
	p.state = sending
	c.retry(p, rule{unsure: true}, sarama.ErrNetworkException, now)
	p.state = sending
	c.retry(p, rule{}, sarama.ErrNotEnoughReplicas, now)
	require.True(t, p.unsure)
	c.giveUp(p, produce.Timeout, sarama.ErrNotEnoughReplicas)
	c.unlock()
	require.NotEqual(t, before, c.id, "what comes next is numbered in another epoch")
}

// arrived is the reader of a partition, with messages that have arrived.
type arrived struct {
	sarama.PartitionConsumer
	messages chan *sarama.ConsumerMessage
	faults   chan *sarama.ConsumerError
}

func (a arrived) Messages() <-chan *sarama.ConsumerMessage { return a.messages }
func (a arrived) Errors() <-chan *sarama.ConsumerError     { return a.faults }

// timePartitionOf returns a partition that reads these messages. The first ones, before end, were there before.
func timePartitionOf(end int64, messages ...*sarama.ConsumerMessage) *timePartition {
	reader := arrived{messages: make(chan *sarama.ConsumerMessage, len(messages))}
	for i, message := range messages {
		message.Offset = int64(i)
		reader.messages <- message
	}
	return &timePartition{reader: reader, end: end}
}

// A user who waits for events in vain gets one hint what to look at. The hint does not go where the events go.
func TestTailSaysWhatToLookAtWhenNothingArrives(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		tail    Tail
		arrives bool
		want    string
	}{
		"nothing": {Tail{From: Start{Recent: true}}, false, "nothing has come for 5s: does the service get events? " +
			"See capture_events_received_total in its /metrics; --from start shows earlier ones\n"},
		"a token": {Tail{Token: "phc_mine"}, true,
			"nothing with the token phc_mine has come for 5s: " +
				"does the service get events? See capture_events_received_total in its /metrics\n"},
		"a name of a user": {Tail{Event: "e", DistinctID: "u"}, true,
			"nothing with the event e with the distinct_id u has come for 5s: " +
				"does the service get events? See capture_events_received_total in its /metrics\n"},
		"an event": {Tail{}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, interrupt := context.WithCancel(t.Context())
				var out, err bytes.Buffer
				source := &timeline{}
				if test.arrives {
					source.partitions = append(source.partitions,
						timePartitionOf(0, &sarama.ConsumerMessage{Topic: "a", Value: []byte("{}")}))
				}
				time.AfterFunc(time.Hour, interrupt)
				use := module.Invocation{Context: ctx, Output: module.JSON, Out: &out, Err: &err}
				test.tail.Follow = true
				p := &tailPrinter{tail: test.tail, use: use, list: use.List()}
				require.ErrorIs(t, test.tail.print(use, source, nil, p), context.Canceled)
				require.Equal(t, test.want, err.String())
				require.Equal(t, test.want == "", out.Len() > 0)
			})
		})
	}
}

func TestTailPrintsByTimeAcrossPartitions(t *testing.T) {
	t.Parallel()
	at := func(second int64, value string) *sarama.ConsumerMessage {
		return &sarama.ConsumerMessage{Timestamp: time.Unix(second, 0), Value: []byte(value)}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		time.AfterFunc(time.Hour, interrupt)
		source := &timeline{partitions: []*timePartition{
			timePartitionOf(3, at(1, "a"), at(5, "e"), at(6, "f"), at(9, "i")),
			timePartitionOf(2, at(2, "b"), at(4, "d"), at(7, "g")),
			timePartitionOf(9, at(3, "c")), // the offsets behind are the marks of transactions
			timePartitionOf(0, at(8, "h")),
		}}
		var order string
		each := func(message *sarama.ConsumerMessage) error {
			order += string(message.Value)
			return nil
		}
		require.NoError(t, source.drain(ctx, each))
		require.Equal(t, "abcdef", order, "what was there")
		require.Equal(t, []string{"/0"}, source.late(), "the one whose last offsets are marks")
		require.ErrorIs(t, source.follow(ctx, nil, each, func() {}), context.Canceled)
		require.Equal(t, "abcdefghi", order, "what arrives together")
	})
}

func TestAReadOfAPartitionEndsWhateverTheBrokerGives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		read := func(p *timePartition) (read int, err error) {
			err = p.passToEnd(t.Context(), func(int32, int64, *produce.Message) error {
				read++
				return nil
			})
			return read, err
		}
		message := func() *sarama.ConsumerMessage { return &sarama.ConsumerMessage{} }
		n, err := read(timePartitionOf(2, message(), message()))
		require.NoError(t, err)
		require.Equal(t, 2, n)
		n, err = read(timePartitionOf(9, message(), message())) // the offsets behind are the marks of transactions
		require.EqualError(t, err, "topic , partition 0: nothing has come for 30s, although 7 offsets are left: "+
			"Kafka is slow, or they are marks of transactions")
		require.Equal(t, 2, n, "what is there is read")

		removed := timePartitionOf(9)
		faults, end := make(chan *sarama.ConsumerError, 1), make(chan *sarama.ConsumerMessage)
		faults <- &sarama.ConsumerError{Err: sarama.ErrOffsetOutOfRange}
		close(faults)
		close(end)
		removed.reader = arrived{messages: end, faults: faults}
		_, err = read(removed)
		require.ErrorIs(t, err, sarama.ErrOffsetOutOfRange)
	})
}

// A broker without an index of times gives all that is older first.
func TestAPartitionIsNotLateWhileItGivesWhatIsLeftOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := timePartitionOf(4)
		p.since = time.Unix(3, 0)
		arriving := make(chan *sarama.ConsumerMessage)
		p.reader = arrived{messages: arriving}
		go func() {
			for offset := range int64(4) {
				<-time.After(stall * 3 / 4)
				arriving <- &sarama.ConsumerMessage{Offset: offset, Timestamp: time.Unix(offset, 0)}
			}
		}()
		require.NoError(t, p.fill(t.Context(), stall))
		require.False(t, p.late)
		require.EqualValues(t, 3, p.head.Offset)
	})
}

func TestTheNewestMessagesAreKeptInOrder(t *testing.T) {
	t.Parallel()
	newest := &ring{size: 3}
	for offset := range int64(8) {
		newest.add(&sarama.ConsumerMessage{Offset: offset})
		kept := newest.inOrder()
		require.Len(t, kept, int(min(offset+1, 3)))
		for i, message := range kept {
			require.Equal(t, offset-int64(len(kept)-1-i), message.Offset)
		}
	}
}

func TestTheStartOfATailIsUnderstood(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 27, 15, 0, 0, 0, time.UTC)
	for text, want := range map[string]Start{
		"recent": {Recent: true}, "start": {}, "now": {Now: true}, "90s": {At: now.Add(-90 * time.Second)},
		"2026-11-27T15:00:00+01:00": {At: now.Add(-time.Hour)},
	} {
		got, err := parseStart(text, now)
		require.NoError(t, err)
		require.True(t, want.At.Equal(got.At))
		want.At, got.At = time.Time{}, time.Time{}
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "yesterday", "-1h", "0s", "2026-11-27"} {
		_, err := parseStart(text, now)
		var misuse *module.MisuseError
		require.ErrorAs(t, err, &misuse, text)
	}
}

func TestTheLineForPeopleShowsWhatTheSenderHasThoughtOf(t *testing.T) {
	t.Parallel()
	line := Line{
		Topic: "events", Partition: 1, Offset: 7, Timestamp: time.Unix(0, 0),
		Headers: map[string]string{"event": "signed\nup", "distinct_id": "\x1b[2J"},
		Value: json.RawMessage(`{"uuid":"0190","data":{"event":"x","properties":{"$lib":"web","plan":"pro",` +
			`"$current_url":"https://example.com/a?b=1","seats":3,"cart":[1],"user":{"a":1},"more":1}}}`),
	}
	when := time.Unix(0, 0).Format("2006-01-02 15:04:05.000")
	require.Equal(t, when+`  signed\nup          \u001b[2J           0190  plan=pro  seats=3  cart=[…]  user={…}  `+
		"(events/1/7)\n", line.pretty(false))
	require.Equal(t, "\x1b[2m"+when+"\x1b[0m  \x1b[1msigned\\nup\x1b[0m          \x1b[36m\\u001b[2J\x1b[0m           "+
		"0190  \x1b[2mplan=\x1b[0mpro  \x1b[2mseats=\x1b[0m3  \x1b[2mcart=\x1b[0m[…]  \x1b[2muser=\x1b[0m{…}  "+
		"\x1b[2m(events/1/7)\x1b[0m\n", line.pretty(true))
	for value, want := range map[string]string{
		`{"uuid":"u","data":{"properties":{"$current_url":"/","a":"", "b":"x y"}}}`: `u  a=""  b="x y"  $current_url=/`,
		`{"uuid":"u","data":"text"}`: "u",
		`[1]`:                        "",
		`{"uuid":"u","data":{"properties":{"a":"` + strings.Repeat("ö", 50) + `"}}}`: "u  a=" +
			strings.Repeat("ö", 39) + "…",
	} {
		line.Value = json.RawMessage(value)
		require.Contains(t, line.pretty(false), "  "+want+"  (", value)
	}
}

// What waits for an overflow topic is sent at the turns of the topic, all partitions at the same time. What is full,
// or was sent before, waits for no others.
func TestWhenAPartitionIsReady(t *testing.T) {
	t.Parallel()
	began := time.Unix(1_000_000, 0)
	for name, test := range map[string]struct {
		linger, turn  time.Duration
		topic         string
		at            time.Duration // of the first message that waits, since began
		bytes, resent int
		notUntil      time.Duration
		from          time.Duration // when it is ready
	}{
		"no wait":                      {topic: "events", at: 7},
		"another topic has no turns":   {topic: "events", turn: 100, at: 7, from: 7},
		"a turn":                       {topic: "overflow", turn: 100, at: 107, from: 200},
		"the end of the same turn":     {topic: "overflow", turn: 100, at: 199, from: 200},
		"the beginning of a turn":      {topic: "overflow", turn: 100, at: 200, from: 300},
		"a linger":                     {topic: "events", linger: 30, at: 107, from: 137},
		"a linger, and a later turn":   {topic: "overflow", linger: 30, turn: 100, at: 107, from: 200},
		"a turn, and a later linger":   {topic: "overflow", linger: 30, turn: 100, at: 187, from: 217},
		"as much as a batch may have":  {topic: "overflow", linger: 30, turn: 100, at: 107, bytes: 50, from: 107},
		"sent before":                  {topic: "overflow", linger: 30, turn: 100, at: 107, resent: 1, from: 107},
		"sent before, and not so soon": {topic: "overflow", turn: 100, at: 107, resent: 1, notUntil: 150, from: 150},
		"a pause behind what failed":   {topic: "overflow", turn: 100, at: 107, notUntil: 250, from: 250},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &core{
				cfg: coreConfig{
					linger: test.linger, overflow: []string{"overflow"}, overflowLinger: test.turn, maxBatch: 50,
				},
				topics: map[string]*topic{}, parked: map[*partition]struct{}{}, began: began,
				alarm: time.NewTimer(time.Hour),
			}
			defer c.alarm.Stop()
			p := &partition{topic: c.topic(test.topic), link: &link{inFlight: true}, notUntil: began.Add(test.notUntil)}
			e := entry{message: &produce.Message{}, at: began.Add(test.at), size: max(test.bytes, 1)}
			if p.waiting.push(e); test.resent > 0 {
				p.batch = []entry{e}
			}
			if test.from > test.at {
				c.place(p, began.Add(test.from-1))
				require.Equal(t, parked, p.state)
			}
			c.place(p, began.Add(max(test.from, test.at)))
			require.Equal(t, ready, p.state)
		})
	}
}
