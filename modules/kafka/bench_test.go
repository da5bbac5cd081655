package kafka_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

// blackholeEnv makes the test binary a broker that acknowledges everything and keeps nothing, for benchmarks. The
// broker has a process of its own, so that its CPU time is not counted.
const blackholeEnv = "CAPTURE_TEST_BLACKHOLE"

const benchTopic, benchPartitions = "bench", 3

// runBlackhole runs the broker until its standard input ends.
func runBlackhole() {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BlackholeProduce(),
		kfake.SeedTopics(benchPartitions, benchTopic))
	if err != nil {
		panic(err)
	}
	fmt.Println(broker.ListenAddrs()[0])
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	broker.Close()
}

// blackhole starts the broker and returns its address.
func blackhole(b testing.TB) string {
	b.Helper()
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), blackholeEnv+"=1")
	process.Stderr = os.Stderr
	in, err := process.StdinPipe()
	require.NoError(b, err)
	out, err := process.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, process.Start())
	b.Cleanup(func() {
		_ = in.Close()
		_ = process.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(b, err)
	return strings.TrimSpace(line)
}

// benchMessages returns 50 messages of 1 KB, with six headers, as 50 users make them. Half of the text repeats. The
// other half consists of identifiers that do not repeat.
func benchMessages() []produce.Message {
	random := rand.New(rand.NewPCG(1, 2))
	list := make([]produce.Message, 50)
	for i := range list {
		value := []byte(`{"uuid":"01900000-0000-7000-8000-000000000000",` +
			`"distinct_id":"user","ip":"203.0.113.7","data":"{`)
		for len(value) < 1024 {
			value = fmt.Appendf(value, `\"$current_url\":\"https://example.com/%016x%016x\",`,
				random.Uint64(), random.Uint64())
		}
		header := func(key, value string) produce.Header {
			return produce.Header{Key: []byte(key), Value: []byte(value)}
		}
		list[i] = produce.Message{
			Topic: benchTopic, Key: fmt.Appendf(nil, "phc_test:user-%d", i), Value: value[:1024],
			Headers: []produce.Header{
				header("token", "phc_test"), header("distinct_id", fmt.Sprint("user-", i)),
				header("timestamp", "1700000000000"),
				header("event", "$pageview"), header("uuid", "01900000-0000-7000-8000-000000000000"),
				header("now", "2026-11-24T03:00:00.123Z"),
			},
		}
	}
	return list
}

// cpu returns the CPU time of this process.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// measure runs send from 16 goroutines, and reports CPU time and allocations a message. send sends 50 messages and
// returns when they are acknowledged.
func measure(b *testing.B, send func(list []produce.Message, done chan struct{})) {
	const writers = 16
	rounds := max(b.N/(50*writers), 1)
	work := func(rounds int) {
		var group sync.WaitGroup
		for range writers {
			group.Go(func() {
				list, done := benchMessages(), make(chan struct{}, 1)
				for range rounds {
					send(list, done)
					<-done
				}
			})
		}
		group.Wait()
	}
	work(20)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := cpu(b)
	b.ResetTimer()
	work(rounds)
	b.StopTimer()
	used := cpu(b) - start
	runtime.ReadMemStats(&after)
	n := float64(rounds * writers * 50)
	b.ReportMetric(float64(used.Nanoseconds())/n, "cpu-ns/message")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "mallocs/message")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/n, "alloc-B/message")
}

// BenchmarkProduce compares the producer with sarama's AsyncProducer, which sent the messages before there was a core
// of our own.
func BenchmarkProduce(b *testing.B) {
	for _, compression := range []string{"none", "lz4"} {
		b.Run("core/"+compression, func(b *testing.B) { benchCore(b, compression) })
		b.Run("async/"+compression, func(b *testing.B) { benchAsync(b, compression) })
	}
}

// benchProducer returns a producer that writes to the blackhole.
func benchProducer(b testing.TB, compression string) *kafka.Producer {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = []string{blackhole(b)}
	cfg.Compression = compression
	cfg.Topics.Create = false
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(b, err)
	producer, err := kafka.NewProducer(cfg, bootstrap, zap.NewNop(), tally.NoopScope)
	require.NoError(b, err)
	require.NoError(b, producer.Start(b.Context()))
	b.Cleanup(func() { require.NoError(b, producer.Stop(context.Background())) })
	return producer
}

// produceAll produces messages and tells done when all are acknowledged.
func produceAll(producer *kafka.Producer, list []produce.Message, done chan struct{}) {
	var mu sync.Mutex
	left := len(list)
	producer.Produce(list, func(_ int, err error) {
		if err != nil {
			panic(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if left--; left == 0 {
			done <- struct{}{}
		}
	})
}

func benchCore(b *testing.B, compression string) {
	producer := benchProducer(b, compression)
	measure(b, func(list []produce.Message, done chan struct{}) { produceAll(producer, list, done) })
}

// The test is not parallel, because it counts the allocations of the process.
func TestAMessageTakesLessThanAnAllocation(t *testing.T) {
	producer := benchProducer(t, "none")
	require.Eventually(t, func() bool {
		return producer.Ready() == nil || !strings.Contains(producer.Ready().Error(), "not connected")
	},
		patience, time.Millisecond)
	list, done := slices.Repeat(benchMessages(), 10), make(chan struct{}, 1)
	rounds := func(n int) {
		for range n {
			produceAll(producer, list, done)
			<-done
		}
	}
	rounds(20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 50
	rounds(n)
	runtime.ReadMemStats(&after)
	mallocs := float64(after.Mallocs-before.Mallocs) / float64(n*len(list))
	t.Logf("%.2f allocations a message, in batches of %d", mallocs, len(list)/benchPartitions)
	require.LessOrEqual(t, mallocs, 1.0)
}

type asyncCall struct {
	mu   sync.Mutex
	left int
	done chan struct{}
}

func benchAsync(b *testing.B, compression string) {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Net.MaxOpenRequests = 1
	config.Producer.Partitioner = sarama.NewMurmur2Partitioner
	config.Producer.Return.Successes = true
	config.Producer.Compression = map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "lz4": sarama.CompressionLZ4,
	}[compression]
	producer, err := sarama.NewAsyncProducer([]string{blackhole(b)}, config)
	require.NoError(b, err)
	var drained sync.WaitGroup
	drained.Go(func() {
		for message := range producer.Successes() {
			call := message.Metadata.(*asyncCall)
			call.mu.Lock()
			if call.left--; call.left == 0 {
				call.done <- struct{}{}
			}
			call.mu.Unlock()
		}
	})
	drained.Go(func() {
		for err := range producer.Errors() {
			panic(err)
		}
	})
	defer drained.Wait()
	defer producer.AsyncClose()
	measure(b, func(list []produce.Message, done chan struct{}) {
		call := &asyncCall{left: len(list), done: done}
		messages := make([]sarama.ProducerMessage, len(list))
		headers := make([]sarama.RecordHeader, 0, 6*len(list))
		for i := range list {
			from := len(headers)
			for _, h := range list[i].Headers {
				headers = append(headers, sarama.RecordHeader{Key: h.Key, Value: h.Value})
			}
			messages[i] = sarama.ProducerMessage{
				Topic: list[i].Topic, Key: sarama.ByteEncoder(list[i].Key), Value: sarama.ByteEncoder(list[i].Value),
				Headers: headers[from:], Metadata: call,
			}
			producer.Input() <- &messages[i]
		}
	})
}
