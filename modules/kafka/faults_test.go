package kafka_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

// passing holds errors that say nothing about a single message.
var passing = []*kerr.Error{
	kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotEnoughReplicas,
	kerr.UnknownServerError, kerr.KafkaStorageError, kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID,
	kerr.TopicAuthorizationFailed, errUnknownCode,
}

// chaos has a broker answer produce requests at random with errors, late, or by cutting the connection. The broker
// refuses batches that hold a bad message.
type chaos struct {
	mu     sync.Mutex
	random *rand.Rand
	on     bool
	plans  map[kmsg.Request]map[int32]*kerr.Error // by partition
}

const badValue = "bad"

func startChaos(broker *kfake.Cluster, connections *flaky, topic string, partitions int32, seed uint64) *chaos {
	c := &chaos{random: rand.New(rand.NewPCG(seed, seed)), on: true, plans: map[kmsg.Request]map[int32]*kerr.Error{}}
	broker.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		c.mu.Lock()
		pause, cut := c.plan(request, connections)
		c.mu.Unlock()
		if pause > 0 {
			broker.SleepControl(func() { <-time.After(pause) })
		}
		if cut {
			return nil, errCut, true
		}
		return nil, nil, false
	})
	for p := range partitions {
		for _, code := range append(passing, kerr.InvalidRecord) {
			broker.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: []int32{p}, Err: code, Count: -1,
				When: func(request kmsg.Request) bool {
					c.mu.Lock()
					defer c.mu.Unlock()
					return c.plans[request][p] == code
				},
			})
		}
	}
	return c
}

// plan decides how the broker answers a request.
func (c *chaos) plan(request kmsg.Request, connections *flaky) (pause time.Duration, cut bool) {
	plan := map[int32]*kerr.Error{}
	c.plans[request] = plan
	for _, b := range batchesOf(request) {
		switch {
		case slices.ContainsFunc(b.values, func(v string) bool { return strings.HasSuffix(v, badValue) }):
			plan[b.partition] = kerr.InvalidRecord
		case c.on && c.random.IntN(4) == 0:
			plan[b.partition] = passing[c.random.IntN(len(passing))]
		}
	}
	if !c.on {
		return 0, false
	}
	switch c.random.IntN(20) {
	case 0:
		return 0, true
	case 1:
		connections.breaks.Add(1)
	case 2, 3:
		return time.Duration(c.random.IntN(30)) * time.Millisecond, false
	}
	return 0, false
}

func (c *chaos) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = false
}

// sender produces the messages of some keys. Like the drain of a spool, it produces failed messages again, in their
// order, before it produces new ones.
type sender struct {
	producer *kafka.Producer
	random   *rand.Rand
	rest     []produce.Message // not acknowledged, in order
	refused  []string
	failures int
}

// run produces a few of the messages at a time, in several calls, until each is acknowledged or refused.
func (s *sender) run() error {
	for deadline := time.Now().Add(3 * patience); len(s.rest) > 0; {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d messages are left", len(s.rest))
		}
		n := min(len(s.rest), 1+s.random.IntN(40))
		errs, err := s.calls(s.rest[:n])
		if err != nil {
			return err
		}
		var failed []produce.Message
		fails := map[string]error{} // by key
		for i, m := range s.rest[:n] {
			switch {
			case errs[i] == nil:
				if before := fails[string(m.Key)]; before != nil {
					return fmt.Errorf("%s is acknowledged, and one before it has failed: %w", m.Value, before)
				}
			case produce.IsRefusal(errs[i]):
				s.refused = append(s.refused, string(m.Value))
			default:
				fails[string(m.Key)] = errs[i]
				failed = append(failed, m)
				s.failures++
			}
		}
		s.rest = append(failed, s.rest[n:]...)
	}
	return nil
}

// calls produces messages, a few in each call, and returns their reports.
func (s *sender) calls(list []produce.Message) ([]error, error) {
	errs, times := make([]error, len(list)), make([]int, len(list))
	var mu sync.Mutex
	done := make(chan struct{})
	left := len(list)
	for from := 0; from < len(list); {
		end := min(len(list), from+1+s.random.IntN(10))
		first := from
		s.producer.Produce(list[from:end], func(i int, err error) {
			mu.Lock()
			defer mu.Unlock()
			errs[first+i] = err
			times[first+i]++
			if left--; left == 0 {
				close(done)
			}
		})
		from = end
	}
	select {
	case <-done:
	case <-time.After(patience):
		return nil, fmt.Errorf("messages have no report")
	}
	mu.Lock()
	defer mu.Unlock()
	for i, n := range times {
		if n != 1 {
			return nil, fmt.Errorf("%d reports on %s", n, list[i].Value)
		}
	}
	return errs, nil
}

// The test requires four things of the producer, whatever the brokers do. No message is lost. The first copies of each
// key's messages lie in order. No message is reported twice. Only bad messages are refused. CAPTURE_TEST_SEED repeats a
// run, as far as goroutines let it.
func TestNothingIsLostOrOvertakenUnderRandomFaults(t *testing.T) {
	t.Parallel()
	const runs = 4
	for run := range runs {
		t.Run(strconv.Itoa(run), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			if text := os.Getenv("CAPTURE_TEST_SEED"); text != "" {
				var err error
				seed, err = strconv.ParseUint(text, 10, 64)
				require.NoError(t, err)
			}
			t.Logf("CAPTURE_TEST_SEED=%d", seed)
			runFaults(t, seed)
		})
	}
}

func runFaults(t *testing.T, seed uint64) {
	const senders, keys, each, partitions, nodes = 4, 3, 80, 3, 2
	random := rand.New(rand.NewPCG(seed, 0))
	var connections flaky
	broker := fake(t, kfake.NumBrokers(nodes), connections.listen())
	cfg := plain(broker.ListenAddrs()...)
	cfg.Topics.Partitions = partitions
	cfg.AckTimeout = time.Duration(200+random.IntN(600)) * time.Millisecond
	cfg.Linger = []time.Duration{0, 0, 2 * time.Millisecond}[random.IntN(3)]
	producer, _ := start(t, cfg)
	faults := startChaos(broker, &connections, cfg.Topics.Events, partitions, seed)

	all := make([]*sender, senders)
	errs := make([]error, senders)
	var group sync.WaitGroup
	bad := map[string]bool{}
	for i := range all {
		s := &sender{producer: producer, random: rand.New(rand.NewPCG(seed, uint64(i)))}
		for n := range each {
			for k := range keys {
				key := fmt.Sprintf("%d.%d", i, k)
				value := fmt.Sprintf("%s %d ", key, n)
				if s.random.IntN(50) == 0 {
					value += badValue
					bad[value] = true
				}
				s.rest = append(s.rest,
					produce.Message{Topic: cfg.Topics.Events, Key: []byte(key), Value: []byte(value)})
			}
		}
		all[i] = s
	}
	for i, s := range all {
		group.Go(func() { errs[i] = s.run() })
	}
	moved := make(chan struct{})
	go func() {
		defer close(moved)
		for i := range 20 {
			_ = broker.MoveTopicPartition(cfg.Topics.Events, int32(i%partitions), int32(random.IntN(nodes)))
			<-time.After(50 * time.Millisecond)
		}
		faults.end()
	}()
	group.Wait()
	<-moved
	refused, failures := map[string]bool{}, 0
	for i, s := range all {
		require.NoError(t, errs[i])
		for _, value := range s.refused {
			refused[value] = true
		}
		failures += s.failures
	}
	t.Logf("%d times a message failed", failures)
	for value := range refused {
		require.True(t, bad[value], "%q was refused", value)
	}
	require.Len(t, refused, len(bad))

	require.NoError(t, producer.Flush(t.Context()))
	found, next := map[string]bool{}, map[string]int{}
	want := senders*keys*each - len(bad)
	records := 0
	consumeUntil(t, cfg.Brokers, cfg.Topics.Events, func(key, value string) bool {
		records++
		if !found[value] {
			found[value] = true
			n, err := strconv.Atoi(strings.Fields(value)[1])
			require.NoError(t, err)
			require.GreaterOrEqual(t, n, next[key], "%q came too late", value)
			next[key] = n + 1
		}
		return len(found) == want
	})
	require.Len(t, slices.Collect(maps.Keys(found)), want)
	for value := range bad {
		require.False(t, found[value], "%q is in Kafka", value)
	}
	t.Logf("%d records of %d messages", records, want)
}
