package batch

import (
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/produce"
)

// Spec is the part of a batch beside its messages.
type Spec struct {
	Codec sarama.CompressionCodec
	// Producer and Sequence number the first message; the others follow.
	Producer Producer
	Sequence int32
	// Time is the time of the messages that have none of their own, or of all messages if Restamp is set.
	Time    time.Time
	Restamp bool
}

// Memory is the memory of the batches of one request. It is used again for the next request. Call Reserve, then Begin,
// Add and End for each batch, and Forget once the request is encoded. Memory is not safe for concurrent use.
type Memory struct {
	batches        []sarama.RecordBatch
	records        []sarama.Record
	recordPointers []*sarama.Record
	headers        []sarama.RecordHeader
	headerPointers []*sarama.RecordHeader

	spec  Spec // of the present batch
	start int  // index of its first record
}

// Reserve makes room for a request of that many batches, with that many records and headers in all. The room must be
// enough, because pointers to the records and headers must stay valid.
func (m *Memory) Reserve(batches, records, headers int) {
	m.batches = slices.Grow(m.batches[:0], batches)
	m.records = slices.Grow(m.records[:0], records)
	m.recordPointers = slices.Grow(m.recordPointers[:0], records)
	m.headers = slices.Grow(m.headers[:0], headers)
	m.headerPointers = slices.Grow(m.headerPointers[:0], headers)
}

// Begin begins a batch.
func (m *Memory) Begin(spec Spec) {
	m.spec, m.start = spec, len(m.records)
	m.batches = append(m.batches, sarama.RecordBatch{
		Version: 2, Codec: spec.Codec, CompressionLevel: sarama.CompressionLevelDefault,
		ProducerID: spec.Producer.ID, ProducerEpoch: spec.Producer.Epoch, FirstSequence: spec.Sequence,
	})
}

// Add adds a message to the batch. The batch refers to the message's bytes until Forget.
func (m *Memory) Add(message *produce.Message) {
	batch := &m.batches[len(m.batches)-1]
	at := message.Time
	if m.spec.Restamp || at.IsZero() {
		at = m.spec.Time
	}
	n := len(m.records) - m.start
	if n == 0 {
		batch.FirstTimestamp, batch.MaxTimestamp = at, at
	} else if at.After(batch.MaxTimestamp) {
		batch.MaxTimestamp = at
	}
	from := len(m.headerPointers)
	for i := range message.Headers {
		header := &message.Headers[i]
		m.headers = append(m.headers, sarama.RecordHeader{Key: header.Key, Value: header.Value})
		m.headerPointers = append(m.headerPointers, &m.headers[len(m.headers)-1])
	}
	m.records = append(m.records, sarama.Record{
		Headers:        m.headerPointers[from:len(m.headerPointers):len(m.headerPointers)],
		TimestampDelta: time.Duration(at.UnixMilli()-batch.FirstTimestamp.UnixMilli()) * time.Millisecond,
		OffsetDelta:    int64(n),
		Key:            message.Key,
		Value:          message.Value,
	})
	m.recordPointers = append(m.recordPointers, &m.records[len(m.records)-1])
}

// End returns the batch, which has at least one message. The batch is valid until Forget.
func (m *Memory) End() *sarama.RecordBatch {
	batch := &m.batches[len(m.batches)-1]
	batch.LastOffsetDelta = int32(len(m.records) - m.start - 1)
	batch.Records = m.recordPointers[m.start:len(m.recordPointers):len(m.recordPointers)]
	return batch
}

// Forget drops the references of the memory, and gives up memory that an unusually large request has needed.
func (m *Memory) Forget() {
	const kept = 1 << 14
	if cap(m.records) > kept || cap(m.headers) > 16*kept {
		*m = Memory{}
		return
	}
	clear(m.batches)
	clear(m.records)
	clear(m.headers)
}
