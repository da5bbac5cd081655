package batch_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/opencapture/capture/modules/kafka/batch"
	"github.com/opencapture/capture/modules/produce"
)

var codecs = []sarama.CompressionCodec{
	sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4,
	sarama.CompressionZSTD,
}

// wire is the broker's end of a connection. It shows the bytes that sarama sends.
type wire struct {
	mu     sync.Mutex
	broker *sarama.Broker
	conn   net.Conn
}

// Dial implements proxy.Dialer.
func (w *wire) Dial(string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	w.conn = theirs
	return ours, nil
}

func newWire(t testing.TB) *wire {
	t.Helper()
	w := &wire{broker: sarama.NewBroker("broker:9092")}
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.ApiVersionsRequest = false
	config.Net.Proxy.Enable, config.Net.Proxy.Dialer = true, w
	config.Net.MaxOpenRequests = 1 << 20
	require.NoError(t, w.broker.Open(config))
	connected, err := w.broker.Connected()
	require.NoError(t, err)
	require.True(t, connected)
	t.Cleanup(func() {
		require.NoError(t, w.conn.Close())
		_ = w.broker.Close()
	})
	return w
}

// send has sarama send a record batch, and returns the batch's bytes.
func (w *wire) send(t testing.TB, made *sarama.RecordBatch) []byte {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	request := &sarama.ProduceRequest{RequiredAcks: sarama.WaitForAll, Version: 8}
	request.AddBatch("topic", 3, made)
	failed := make(chan error, 1)
	go func() { failed <- w.broker.AsyncProduce(request, func(*sarama.ProduceResponse, error) {}) }()
	var size [4]byte
	_, err := io.ReadFull(w.conn, size[:])
	require.NoError(t, err)
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err = io.ReadFull(w.conn, frame)
	require.NoError(t, err)
	require.NoError(t, <-failed)
	sent := kmsg.NewPtrProduceRequest()
	sent.Version = 8
	client := int(binary.BigEndian.Uint16(frame[8:]))
	require.NoError(t, sent.ReadFrom(frame[10+client:]))
	require.Len(t, sent.Topics, 1)
	require.Equal(t, "topic", sent.Topics[0].Topic)
	require.EqualValues(t, 3, sent.Topics[0].Partitions[0].Partition)
	return sent.Topics[0].Partitions[0].Records
}

// made makes a batch.
func made(m *batch.Memory, spec batch.Spec, list []produce.Message) *sarama.RecordBatch {
	headers := 0
	for i := range list {
		headers += len(list[i].Headers)
	}
	m.Reserve(1, len(list), headers)
	m.Begin(spec)
	for i := range list {
		m.Add(&list[i])
	}
	return m.End()
}

// requireHolds requires that the bytes are a batch of these messages, as a client other than sarama reads them.
func requireHolds(t testing.TB, bytes []byte, spec batch.Spec, list []produce.Message) {
	t.Helper()
	var head kmsg.RecordBatch
	require.NoError(t, head.ReadFrom(bytes))
	require.Equal(t, spec.Producer.ID, head.ProducerID)
	require.Equal(t, spec.Producer.Epoch, head.ProducerEpoch)
	require.Equal(t, spec.Sequence, head.FirstSequence)
	require.EqualValues(t, len(list), head.NumRecords)
	require.EqualValues(t, len(list)-1, head.LastOffsetDelta)
	require.EqualValues(t, spec.Codec, head.Attributes&7)
	latest := int64(math.MinInt64)
	partition := kmsg.NewFetchResponseTopicPartition()
	partition.RecordBatches = bytes
	options := kgo.ProcessFetchPartitionOpts{Topic: "topic"}
	read, _ := kgo.ProcessFetchPartition(options, &partition, kgo.DefaultDecompressor(), nil)
	require.NoError(t, read.Err)
	require.Len(t, read.Records, len(list))
	for i, record := range read.Records {
		m := &list[i]
		at := m.Time
		if spec.Restamp || at.IsZero() {
			at = spec.Time
		}
		latest = max(latest, at.UnixMilli())
		require.Equal(t, at.UnixMilli(), record.Timestamp.UnixMilli(), "message %d", i)
		require.Equal(t, m.Key == nil, record.Key == nil, "message %d", i)
		require.Equal(t, string(m.Key), string(record.Key))
		require.Equal(t, string(m.Value), string(record.Value))
		require.Len(t, record.Headers, len(m.Headers))
		for j, header := range record.Headers {
			require.Equal(t, string(m.Headers[j].Key), header.Key)
			require.Equal(t, string(m.Headers[j].Value), string(header.Value))
		}
	}
	require.Equal(t, latest, head.MaxTimestamp)
}

var now = time.UnixMilli(1_900_000_000_123).UTC()

// some returns messages of all kinds.
func some() []produce.Message {
	header := func(key, value string) produce.Header { return produce.Header{Key: []byte(key), Value: []byte(value)} }
	return []produce.Message{
		{
			Key: []byte("user"), Value: []byte(`{"event":"one"}`),
			Headers: []produce.Header{header("token", "t"), header("", "")},
		},
		{Value: []byte("no key"), Time: now.Add(time.Hour)},
		{Key: []byte{}, Value: nil, Time: now.Add(-24 * time.Hour)},
		{
			Key: []byte("user"), Value: []byte(strings.Repeat("text that repeats ", 1000)),
			Headers: []produce.Header{header("uuid", "0")},
		},
	}
}

var spec = batch.Spec{Producer: batch.Producer{ID: 1 << 40, Epoch: 7}, Sequence: math.MaxInt32 - 1, Time: now}

func TestABatchHoldsItsMessages(t *testing.T) {
	w, memory := newWire(t), &batch.Memory{}
	for _, codec := range codecs {
		for _, restamp := range []bool{false, true} {
			spec := spec
			spec.Codec, spec.Restamp = codec, restamp
			requireHolds(t, w.send(t, made(memory, spec, some())), spec, some())
			memory.Forget()
		}
	}
}

// The bytes were recorded from the code that this package was made of.
func TestABatchHasTheSameBytesAsEver(t *testing.T) {
	w := newWire(t)
	list := some()[:3]
	want := strings.NewReplacer(" ", "", "\n", "").Replace(`
0000000000000000 0000006f 00000000 02 09755f81 0000 00000002 000001ba60d3387b 000001ba610a26fb
0000010000000000 0007 7ffffffe 00000003
46 00 00 00 08 75736572 1e 7b226576656e74223a226f6e65227d 04 0a 746f6b656e 02 74 00 00
1e 00 80bab703 02 01 0c 6e6f206b6579 00
12 00 ffefb252 04 00 01 00`)
	require.Equal(t, want, hex.EncodeToString(w.send(t, made(&batch.Memory{}, spec, list))))
}

func TestTheBatchesOfARequestAreApart(t *testing.T) {
	w, memory := newWire(t), &batch.Memory{}
	for range 3 { // in the same memory
		first, second := some(), some()[1:3]
		memory.Reserve(2, len(first)+len(second), 3)
		other := spec
		other.Sequence, other.Producer.Epoch = 0, 8
		var both []*sarama.RecordBatch
		for _, b := range []struct {
			spec batch.Spec
			list []produce.Message
		}{{spec, first}, {other, second}} {
			memory.Begin(b.spec)
			for i := range b.list {
				memory.Add(&b.list[i])
			}
			both = append(both, memory.End())
		}
		requireHolds(t, w.send(t, both[0]), spec, first)
		requireHolds(t, w.send(t, both[1]), other, second)
		memory.Forget()
	}
}

func TestMemoryIsUsedAgain(t *testing.T) {
	memory, list := &batch.Memory{}, some()
	made(memory, spec, list)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		memory.Forget()
		made(memory, spec, list)
	}))
}

// java is Java's DefaultRecordBatch.incrementSequence.
func TestSequenceNumbersWrapAroundAsKafkasOwn(t *testing.T) {
	java := func(sequence, increment int32) int32 {
		if sequence > math.MaxInt32-increment {
			return increment - (math.MaxInt32 - sequence) - 1
		}
		return sequence + increment
	}
	for _, from := range []int32{0, 1, math.MaxInt32 - 3, math.MaxInt32 - 1, math.MaxInt32} {
		for n := range 10 {
			require.Equal(t, java(from, int32(n)), batch.Behind(from, n), "%d + %d", from, n)
		}
	}
}

// A batch of any messages holds the messages, whatever the memory was used for before.
func FuzzBatch(f *testing.F) {
	f.Add([]byte("user"), []byte("value"), []byte("header"), uint8(3), uint8(0), int64(0), int32(0), false)
	f.Add([]byte(nil), []byte(nil), []byte(nil), uint8(1), uint8(4), int64(-1000), int32(math.MaxInt32), true)
	f.Add([]byte{}, []byte{0}, []byte("x"), uint8(200), uint8(3), int64(1<<40), int32(1), false)
	w, memory := newWire(f), &batch.Memory{}
	f.Fuzz(func(t *testing.T, key, value, header []byte, n, codec uint8, offset int64, sequence int32, restamp bool) {
		if offset < -1<<40 || offset > 1<<40 || sequence < 0 {
			t.Skip("no time, or no sequence number, that a producer has")
		}
		spec := spec
		spec.Codec, spec.Sequence, spec.Restamp = codecs[int(codec)%len(codecs)], sequence, restamp
		list := make([]produce.Message, 1+int(n))
		for i := range list {
			list[i] = produce.Message{Key: key, Value: fmt.Appendf(nil, "%d%s", i, value)}
			if i%2 == 1 {
				list[i].Key = nil
			}
			if i%3 > 0 {
				list[i].Time = now.Add(time.Duration(offset) * time.Millisecond / time.Duration(i%3))
			}
			for range i % 4 {
				list[i].Headers = append(list[i].Headers, produce.Header{Key: header, Value: value})
			}
		}
		requireHolds(t, w.send(t, made(memory, spec, list)), spec, list)
		memory.Forget()
	})
}

func BenchmarkBatch(b *testing.B) {
	memory, list := &batch.Memory{}, some()
	b.ReportAllocs()
	for b.Loop() {
		made(memory, spec, list)
		memory.Forget()
	}
}
