package kafka_test

import (
	"encoding/binary"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/opencapture/capture/modules/kafka"
)

// fake starts a broker of the test's own. The test can make it fail.
func fake(t testing.TB, options ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	broker, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, options...)...)
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	return broker
}

// plain returns the configuration of a producer whose batches batchesOf can read.
func plain(brokers ...string) kafka.Config {
	cfg := config(brokers...)
	cfg.Compression = "none"
	cfg.Topics.Partitions = 1
	return cfg
}

// createTopics creates topics of one partition.
func createTopics(t testing.TB, broker *kfake.Cluster, names ...string) {
	t.Helper()
	for _, name := range names {
		require.NoError(t, broker.CreateTopic(name, 1, nil))
	}
}

// seen is a batch as the broker got it.
type seen struct {
	topic     string
	partition int32
	id        int64
	epoch     int16
	sequence  int32
	values    []string
	times     []time.Time
}

func (s seen) has(value string) bool { return slices.Contains(s.values, value) }

// batchesOf returns the batches of a produce request. They must not be compressed.
func batchesOf(request kmsg.Request) []seen {
	var all []seen
	for _, topic := range request.(*kmsg.ProduceRequest).Topics {
		for _, partition := range topic.Partitions {
			var batch kmsg.RecordBatch
			if err := batch.ReadFrom(partition.Records); err != nil {
				panic(err)
			}
			s := seen{
				topic: topic.Topic, partition: partition.Partition, id: batch.ProducerID, epoch: batch.ProducerEpoch,
				sequence: batch.FirstSequence,
			}
			for rest := batch.Records; len(rest) > 0; {
				length, n := binary.Varint(rest)
				var record kmsg.Record
				if err := record.ReadFrom(rest[:n+int(length)]); err != nil {
					panic(err)
				}
				s.values = append(s.values, string(record.Value))
				s.times = append(s.times, time.UnixMilli(batch.FirstTimestamp+record.TimestampDelta64))
				rest = rest[n+int(length):]
			}
			all = append(all, s)
		}
	}
	return all
}

// gate records the batches that come to a broker.
type gate struct {
	mu       sync.Mutex
	requests int
	acks     []int16
	batches  []seen
}

func watch(broker *kfake.Cluster) *gate {
	g := &gate{}
	broker.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.requests++
		g.acks = append(g.acks, request.(*kmsg.ProduceRequest).Acks)
		g.batches = append(g.batches, batchesOf(request)...)
		return nil, nil, false
	})
	return g
}

// of returns the topic's batches so far, in the order in which they came.
func (g *gate) of(topic string) []seen {
	g.mu.Lock()
	defer g.mu.Unlock()
	var batches []seen
	for _, b := range g.batches {
		if b.topic == topic {
			batches = append(batches, b)
		}
	}
	return batches
}

// await waits for n batches of the topic, and returns the topic's batches.
func (g *gate) await(t testing.TB, topic string, n int) []seen {
	t.Helper()
	require.Eventually(t, func() bool { return len(g.of(topic)) >= n }, patience, time.Millisecond,
		"%d batches of topic %s", n, topic)
	return g.of(topic)
}

// refuse has the broker answer the next count batches of a topic with an error. If count is negative, the broker
// answers so until the handle is removed. The broker appends the batch in spite of the error if the code is
// REQUEST_TIMED_OUT or NOT_ENOUGH_REPLICAS_AFTER_APPEND.
func refuse(broker *kfake.Cluster, topic string, code *kerr.Error, count int) *kfake.FaultHandle {
	return broker.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: code, Count: count})
}

// refuseIf has the broker answer with an error the batches of a topic for which the condition holds. The topic has one
// partition.
func refuseIf(broker *kfake.Cluster, topic string, code *kerr.Error, condition func(seen) bool) *kfake.FaultHandle {
	return broker.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: code, Count: -1,
		When: func(request kmsg.Request) bool {
			return slices.ContainsFunc(batchesOf(request), func(s seen) bool {
				return s.topic == topic && condition(s)
			})
		},
	})
}

// hold keeps produce requests unanswered until the returned function is called.
func hold(broker *kfake.Cluster) (release func()) {
	released := make(chan struct{})
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		broker.SleepControl(func() { <-released })
		return nil, nil, false
	})
	return sync.OnceFunc(func() { close(released) })
}

// flaky listens for a broker, and breaks connections instead of passing on an answer.
type flaky struct{ breaks atomic.Int64 }

// listen returns the broker option that makes the broker listen through f.
func (f *flaky) listen() kfake.Opt {
	return kfake.ListenFn(func(network, address string) (net.Listener, error) {
		listener, err := net.Listen(network, address)
		return flakyListener{listener, f}, err
	})
}

type flakyListener struct {
	net.Listener
	flaky *flaky
}

func (l flakyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return flakyConn{conn, l.flaky}, nil
}

type flakyConn struct {
	net.Conn
	flaky *flaky
}

func (c flakyConn) Write(p []byte) (int, error) {
	for {
		n := c.flaky.breaks.Load()
		if n <= 0 {
			return c.Conn.Write(p)
		}
		if c.flaky.breaks.CompareAndSwap(n, n-1) {
			_ = c.Close()
			return 0, net.ErrClosed
		}
	}
}

// values returns the texts of the numbers from first to end.
func values(first, end int) []string {
	list := make([]string, 0, end-first)
	for i := first; i < end; i++ {
		list = append(list, strconv.Itoa(i))
	}
	return list
}
