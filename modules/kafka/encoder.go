package kafka

import (
	"encoding/hex"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/IBM/sarama"
	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
)

// Encoder builds Kafka messages. It needs no broker and is safe for concurrent use.
//
// A message's value is a JSON object with the fields uuid, distinct_id, ip, data, now, sent_at (if the client said),
// token, event, timestamp, is_cookieless_mode and historical_migration (if true), in this order. Field data is a string that
// holds the event's JSON as the client sent it: token, distinct_id, uuid (null if the client made none), event, properties,
// timestamp, offset, $set and $set_once, of which those that were absent are left out. The key is "token:distinct_id", or
// "token:ip" for a cookieless event. The headers are token, distinct_id, timestamp (milliseconds since 1970), event, uuid, now
// and historical_migration (if true).
type Encoder struct {
	topics   Topics
	maxBytes int
	sets     sync.Pool
}

// NewEncoder returns an encoder for the section's topics and size limit.
func NewEncoder(cfg Config) *Encoder {
	return &Encoder{topics: cfg.Topics, maxBytes: int(cfg.MaxMessageBytes), sets: sync.Pool{New: func() any { return new(Set) }}}
}

// Set is the messages of one batch and the memory that they share: their text, their headers and themselves are one
// allocation each, so that a message costs none.
type Set struct {
	Messages []Message

	text    []byte
	headers []sarama.RecordHeader
}

// maxPooledText is the largest text that is kept for another batch.
const maxPooledText = 1 << 20

// Recycle takes back the memory of a set for another batch. Nobody may use its messages any more; where that is not certain,
// a set is left to the garbage collector instead.
func (e *Encoder) Recycle(set *Set) {
	if cap(set.text) <= maxPooledText {
		e.sets.Put(set)
	}
}

// Message is one event as it goes to Kafka.
type Message struct {
	sarama.ProducerMessage

	key, value blob
	event      int // index in the batch
	size       int // as sarama measures

	delivery *delivery
	state    atomic.Uint32
	err      error // the verdict; readable once state is settled
}

// blob is bytes that sarama encodes. Its methods are on the pointer, so that a blob within a Message becomes an Encoder
// without an allocation.
type blob []byte

func (b *blob) Encode() ([]byte, error) { return *b, nil }
func (b *blob) Length() int             { return len(*b) }

var (
	headerToken      = []byte("token")
	headerDistinctID = []byte("distinct_id")
	headerTimestamp  = []byte("timestamp")
	headerEvent      = []byte("event")
	headerUUID       = []byte("uuid")
	headerNow        = []byte("now")
	headerHistorical = []byte("historical_migration")
	textTrue         = []byte("true")
)

const (
	maxHeaders = 7
	uuidLength = 36
	// textPerEvent is what a message is made of besides the event's own text: field names, times, identifiers.
	textPerEvent = 512
	// textPerBatch is the texts that are made once.
	textPerBatch = 512
	// messageSize is what a message takes beside its text.
	messageSize = int64(unsafe.Sizeof(Message{}) + maxHeaders*unsafe.Sizeof(sarama.RecordHeader{}))
)

// bound returns an upper bound of the bytes that Encode allocates.
func (e *Encoder) bound(batch *events.Batch) int64 {
	bound := int64(textPerBatch + 6*(len(batch.Token)+len(batch.ClientIP)))
	for i := range batch.Events {
		if event := &batch.Events[i]; event.Pending() {
			if raw := rawBytes(event); raw <= e.maxBytes {
				bound += messageSize + textPerEvent + 2*int64(raw) + 16*int64(len(event.Name)+len(event.DistinctID)+len(event.ClientIP)+len(batch.Token))
			}
		}
	}
	return bound
}

// rawBytes is the least that an event's own JSON takes in the message.
func rawBytes(event *events.Event) int {
	raw := &event.Raw
	return len(event.Name) + len(raw.Token) + len(raw.DistinctID) + len(raw.Timestamp) + len(raw.Offset) + len(raw.Properties) + len(raw.Set) + len(raw.SetOnce)
}

// Encode builds the messages of the batch's pending events, in their order. An event that is too large is rejected, and its
// neighbours are not touched. The set shares nothing with the batch.
func (e *Encoder) Encode(batch *events.Batch) *Set {
	pending, raw := 0, 0
	for i := range batch.Events {
		if event := &batch.Events[i]; event.Pending() {
			pending++
			if n := rawBytes(event); n <= e.maxBytes {
				raw += n + len(event.DistinctID)
			}
		}
	}
	set := e.sets.Get().(*Set)
	b := batchEncoder{
		text:     slices.Grow(set.text[:0], raw+raw/4+pending*textPerEvent+textPerBatch),
		headers:  slices.Grow(set.headers[:0], pending*maxHeaders),
		messages: slices.Grow(set.Messages[:0], pending),
		batch:    batch,
	}
	b.common()
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		if n := rawBytes(event); n > e.maxBytes {
			event.Reject(events.ReasonTooLarge, events.Errorf(events.TooLarge, "the event is larger than %d bytes", e.maxBytes))
			continue
		}
		text, headers := len(b.text), len(b.headers)
		message := b.message(event)
		if message.size > e.maxBytes {
			event.Reject(events.ReasonTooLarge, events.Errorf(events.TooLarge, "the event makes a message of %d bytes, the limit is %d", message.size, e.maxBytes))
			b.text, b.headers, b.messages = b.text[:text], b.headers[:headers], b.messages[:len(b.messages)-1]
			continue
		}
		message.event = i
		message.Topic = e.topics.Topic(event.Lane)
	}
	set.text, set.headers, set.Messages = b.text, b.headers, b.messages
	return set
}

// batchEncoder builds one batch's messages.
type batchEncoder struct {
	batch    *events.Batch
	text     []byte
	headers  []sarama.RecordHeader
	messages []Message

	// What is the same in every message.
	token []byte
	ip    []byte
	now   []byte
	tail  []byte // of the value, from the end of data to the beginning of the event's name
}

func (b *batchEncoder) common() {
	b.token = b.add(b.batch.Token)
	b.ip = b.add(b.batch.ClientIP)

	start := len(b.text)
	b.text = append(b.text, `}","now":"`...)
	now := len(b.text)
	b.text = b.batch.Received.UTC().AppendFormat(b.text, time.RFC3339Nano)
	b.now = b.text[now:len(b.text):len(b.text)]
	if !b.batch.SentAt.IsZero() {
		b.text = append(b.text, `","sent_at":"`...)
		b.text = b.batch.SentAt.UTC().AppendFormat(b.text, time.RFC3339Nano)
	}
	b.text = append(b.text, `","token":"`...)
	b.text = appendEscaped(b.text, b.token)
	b.text = append(b.text, `","event":"`...)
	b.tail = b.text[start:len(b.text):len(b.text)]
}

// add copies s to the text and returns the copy.
func (b *batchEncoder) add(s string) []byte {
	start := len(b.text)
	b.text = append(b.text, s...)
	return b.text[start:len(b.text):len(b.text)]
}

// message builds the event's message at the end of messages.
func (b *batchEncoder) message(event *events.Event) *Message {
	b.messages = b.messages[:len(b.messages)+1]
	message := &b.messages[len(b.messages)-1]
	*message = Message{}

	ip := b.ip
	if event.ClientIP != "" {
		ip = b.add(event.ClientIP)
	}
	name := b.add(event.Name)

	start := len(b.text)
	b.text = append(b.text, b.token...)
	b.text = append(b.text, ':')
	subject := len(b.text)
	b.text = append(b.text, event.DistinctID...)
	distinctID := b.text[subject:len(b.text):len(b.text)]
	message.key = b.text[start:len(b.text):len(b.text)]
	if event.Cookieless {
		start = len(b.text)
		b.text = append(b.text, b.token...)
		b.text = append(b.text, ':')
		b.text = append(b.text, ip...)
		message.key = b.text[start:len(b.text):len(b.text)]
	}

	start = len(b.text)
	b.text = strconv.AppendInt(b.text, event.Timestamp.UnixMilli(), 10)
	milliseconds := b.text[start:len(b.text):len(b.text)]

	start = len(b.text)
	b.text = append(b.text, `{"uuid":"`...)
	b.text = appendUUID(b.text, event.UUID)
	b.text = append(b.text, `","distinct_id":"`...)
	b.text = appendEscaped(b.text, distinctID)
	b.text = append(b.text, `","ip":"`...)
	b.text = appendEscaped(b.text, ip)
	b.text = append(b.text, `","data":"{`...)
	b.text = appendData(b.text, event, name)
	b.text = append(b.text, b.tail...)
	b.text = appendEscaped(b.text, name)
	b.text = append(b.text, `","timestamp":"`...)
	b.text = event.Timestamp.UTC().AppendFormat(b.text, time.RFC3339Nano)
	b.text = append(b.text, '"')
	if event.Cookieless {
		b.text = append(b.text, `,"is_cookieless_mode":true`...)
	}
	if b.batch.Historical {
		b.text = append(b.text, `,"historical_migration":true`...)
	}
	b.text = append(b.text, '}')
	message.value = b.text[start:len(b.text):len(b.text)]

	headers := len(b.headers)
	b.headers = append(b.headers,
		sarama.RecordHeader{Key: headerToken, Value: b.token},
		sarama.RecordHeader{Key: headerDistinctID, Value: distinctID},
		sarama.RecordHeader{Key: headerTimestamp, Value: milliseconds},
		sarama.RecordHeader{Key: headerEvent, Value: name},
		sarama.RecordHeader{Key: headerUUID, Value: message.value[len(`{"uuid":"`) : len(`{"uuid":"`)+uuidLength]},
		sarama.RecordHeader{Key: headerNow, Value: b.now},
	)
	if b.batch.Historical {
		b.headers = append(b.headers, sarama.RecordHeader{Key: headerHistorical, Value: textTrue})
	}

	message.Key = &message.key
	message.Value = &message.value
	message.Headers = b.headers[headers:len(b.headers):len(b.headers)]
	message.Metadata = message
	message.size = message.ByteSize(recordVersion)
	return message
}

// recordVersion tells sarama to measure a message as a record of a current record batch.
const recordVersion = 2

// appendData appends the event's JSON, but for the braces, as it stands inside a JSON string.
func appendData(dst []byte, event *events.Event, name []byte) []byte {
	raw := &event.Raw
	if raw.Token != nil {
		dst = append(dst, `\"token\":`...)
		dst = appendEscaped(dst, raw.Token)
		dst = append(dst, ',')
	}
	if raw.DistinctID != nil {
		dst = append(dst, `\"distinct_id\":`...)
		dst = appendEscaped(dst, raw.DistinctID)
		dst = append(dst, ',')
	}
	if event.ClientUUID {
		dst = append(dst, `\"uuid\":\"`...)
		dst = appendUUID(dst, event.UUID)
		dst = append(dst, `\",\"event\":\"`...)
	} else {
		dst = append(dst, `\"uuid\":null,\"event\":\"`...)
	}
	start := len(dst)
	dst = appendEscaped(dst, name)
	if len(dst)-start != len(name) {
		// The name needs escapes in its own string, and those need escapes in the string around it.
		dst = appendEscaped(dst[:start], append([]byte(nil), dst[start:]...))
	}
	dst = append(dst, `\",\"properties\":`...)
	dst = appendEscaped(dst, raw.Properties)
	for _, field := range [...]struct {
		name  string
		value []byte
	}{
		{`,\"timestamp\":`, raw.Timestamp},
		{`,\"offset\":`, raw.Offset},
		{`,\"$set\":`, raw.Set},
		{`,\"$set_once\":`, raw.SetOnce},
	} {
		if field.value != nil {
			dst = append(dst, field.name...)
			dst = appendEscaped(dst, field.value)
		}
	}
	return dst
}

func appendUUID(dst []byte, id uuid.UUID) []byte {
	var text [uuidLength]byte
	hex.Encode(text[0:8], id[0:4])
	text[8] = '-'
	hex.Encode(text[9:13], id[4:6])
	text[13] = '-'
	hex.Encode(text[14:18], id[6:8])
	text[18] = '-'
	hex.Encode(text[19:23], id[8:10])
	text[23] = '-'
	hex.Encode(text[24:], id[10:])
	return append(dst, text[:]...)
}
