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
// timestamp, offset, $set and $set_once, of which those that were absent are left out.
//
// The topic is that of the event's lane, unless Routing says otherwise. The key is "token:distinct_id", "token:ip" for a
// cookieless event, and the session's id for a recording; an event of the main stream or of an overflow has none where Routing
// says that its order does not matter. The headers are token, distinct_id, timestamp (milliseconds since 1970), event, uuid and
// now, and where they have something to say historical_migration, session_id, force_disable_person_processing,
// skip_heatmap_processing, dlq_reason, dlq_step and dlq_timestamp.
//
// Some events make more than one message, which follow one another. An event with heatmap data has a $$heatmap event behind it,
// that is left out if it is too large. A recording that is too large for a message makes as many as it needs. The identifiers
// of further messages follow from the event's, so that an event that is sent again makes the same.
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
// allocation each, so that a message costs none. Only a recording, or JSON with unusually many quotes, needs further pieces of text.
type Set struct {
	Messages []Message

	text    []byte
	full    int // bytes of earlier pieces of text, that the messages refer to as well
	headers []sarama.RecordHeader

	heatmapsDropped int // companions that were too large
}

// maxPooledText is the largest text that is kept for another batch.
const maxPooledText = 1 << 20

// Recycle takes back the memory of a set for another batch. Nobody may use its messages any more; where that is not certain,
// a set is left to the garbage collector instead.
func (e *Encoder) Recycle(set *Set) {
	if set.full+cap(set.text) <= maxPooledText {
		e.sets.Put(set)
	}
}

// Message is an event, or a part of one, as it goes to Kafka.
type Message struct {
	sarama.ProducerMessage

	key   blob
	value []byte
	event int // index in the batch
	size  int // as sarama measures

	parcel *parcel
	index  int // in the parcel
	state  atomic.Uint32
	err    error // the verdict; readable once state is settled
	told   bool  // the parcel's owner knows the verdict
}

// Encode implements sarama.Encoder: it gives the value, when the message is about to be sent for the first time. One that would
// overtake a message which has failed is not.
func (m *Message) Encode() ([]byte, error) {
	if m.parcel != nil && m.parcel.failed.Load() {
		return nil, errBehind
	}
	return m.value, nil
}

// Length implements sarama.Encoder.
func (m *Message) Length() int { return len(m.value) }

// link points the message at its own parts. It is called again when the message has been moved.
func (m *Message) link() {
	if m.key != nil {
		m.Key = &m.key // else it stays a nil interface, which is what makes sarama spread messages
	}
	m.Value = m
	m.Metadata = m
}

// blob is a key that sarama encodes. Its methods are on the pointer, so that a blob within a Message becomes an Encoder
// without an allocation.
type blob []byte

func (b *blob) Encode() ([]byte, error) { return *b, nil }
func (b *blob) Length() int             { return len(*b) }

var (
	headerToken        = []byte("token")
	headerDistinctID   = []byte("distinct_id")
	headerTimestamp    = []byte("timestamp")
	headerEvent        = []byte("event")
	headerUUID         = []byte("uuid")
	headerNow          = []byte("now")
	headerHistorical   = []byte("historical_migration")
	headerSessionID    = []byte("session_id")
	headerSkipPerson   = []byte("force_disable_person_processing")
	headerSkipHeatmap  = []byte("skip_heatmap_processing")
	headerDLQReason    = []byte("dlq_reason")
	headerDLQStep      = []byte("dlq_step")
	headerDLQTimestamp = []byte("dlq_timestamp")
	textTrue           = []byte("true")
	textCapture        = []byte("capture")
)

const (
	maxHeaders = 13
	uuidLength = 36
	uuidStart  = len(`{"uuid":"`) // in a value
	// textPerEvent is what a message is made of besides the event's own text: field names, times, identifiers.
	textPerEvent = 640
	// textPerBatch is the texts that are made once.
	textPerBatch = 512
	// messageSize is what a message takes beside its text.
	messageSize = int64(unsafe.Sizeof(Message{}) + maxHeaders*unsafe.Sizeof(sarama.RecordHeader{}))

	// heatmapName is the name of the events that hold heatmap data and nothing else.
	heatmapName = "$$heatmap"
	// dlqTime is RFC 3339 with milliseconds.
	dlqTime = "2006-01-02T15:04:05.000Z07:00"
)

// bound returns an upper bound of the bytes that Encode allocates.
func (e *Encoder) bound(batch *events.Batch) int64 {
	bound, largest := int64(commonText(batch)), int64(0)
	for i := range batch.Events {
		event := &batch.Events[i]
		raw := rawBytes(event)
		if !event.Pending() || raw > e.maxBytes {
			continue
		}
		text := int64(e.longest(batch, event, raw))
		largest = max(largest, text)
		bound += messageSize + text
		if event.Heatmap != nil {
			bound += messageSize
		}
		if event.Recording != nil {
			bound += e.boundRecording(event, messageSize+text)
		}
	}
	return bound + largest // what may be left of a piece of text in which an event has no room
}

// commonText returns an upper bound of the text that is made once for all messages.
func commonText(batch *events.Batch) int {
	return textPerBatch + 6*(len(batch.Token)+len(batch.ClientIP))
}

// longest returns an upper bound of the text that the event's messages are made of, but for the snapshots of a recording.
func (e *Encoder) longest(batch *events.Batch, event *events.Event, raw int) int {
	frame := textPerEvent + 16*(len(event.Name)+len(event.DistinctID)+len(event.ClientIP)+len(event.SessionID)+len(event.Routing.DLQ)+len(batch.Token))
	if recording := event.Recording; recording != nil {
		return frame + 16*(len(recording.Source)+len(recording.Lib)) + 2*raw
	}
	if event.Heatmap != nil && len(event.Heatmap) <= e.maxBytes {
		return 2*(frame+raw) + 2*(len(event.Heatmap)+raw-len(event.Raw.Properties))
	}
	return frame + 2*raw
}

// rawBytes is the least that an event's own JSON takes in the message; of a recording's, what every message repeats.
func rawBytes(event *events.Event) int {
	if recording := event.Recording; recording != nil {
		return len(event.Name) + len(recording.WindowID) + len(recording.Host) + len(recording.Source) + len(recording.Lib)
	}
	raw := &event.Raw
	return len(event.Name) + len(raw.Token) + len(raw.DistinctID) + len(raw.Timestamp) + len(raw.Offset) + len(raw.Properties) + len(raw.Set) + len(raw.SetOnce)
}

// Encode builds the messages of the batch's pending events, in their order. An event that is too large is rejected, and its
// neighbours are not touched; a snapshot that is too large is replaced in its recording, with events.NoteSnapshotReplaced. The
// set shares nothing with the batch.
func (e *Encoder) Encode(batch *events.Batch) *Set {
	// usual is the text that events mostly make, most what these make at most, largest the most of one of them.
	messages, usual, most, largest := 0, 0, 0, 0
	for i := range batch.Events {
		event := &batch.Events[i]
		n := rawBytes(event)
		if !event.Pending() || n > e.maxBytes {
			continue
		}
		messages++
		usual += textPerEvent + n + n/4 + len(event.DistinctID)
		if event.Heatmap != nil && len(event.Heatmap) <= e.maxBytes {
			messages++
			usual += textPerEvent + len(event.Heatmap) + len(event.Heatmap)/4
		}
		longest := e.longest(batch, event, n)
		most += longest
		largest = max(largest, longest)
	}
	set := e.sets.Get().(*Set)
	b := batchEncoder{
		Encoder: e,
		// Where the others were as usual, the last event finds room for its worst case.
		text:     slices.Grow(set.text[:0], commonText(batch)+min(usual+largest, most)),
		headers:  slices.Grow(set.headers[:0], messages*maxHeaders),
		messages: slices.Grow(set.Messages[:0], messages),
		batch:    batch,
	}
	b.common()
	dropped := 0
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		n := rawBytes(event)
		if n > e.maxBytes {
			event.Reject(events.ReasonTooLarge, events.Errorf(events.TooLarge, "the event is larger than %d bytes", e.maxBytes))
			continue
		}
		b.reserve(e.longest(batch, event, n), most)
		most -= e.longest(batch, event, n)
		if event.Recording != nil {
			b.recording(event, i)
			continue
		}
		if size := b.event(event, i); size > e.maxBytes {
			event.Reject(events.ReasonTooLarge, events.Errorf(events.TooLarge, "the event makes a message of %d bytes, the limit is %d", size, e.maxBytes))
			continue
		}
		if event.Heatmap != nil && !b.heatmap(event, i) {
			dropped++
		}
	}
	set.text, set.full, set.headers, set.Messages, set.heatmapsDropped = b.text, b.full, b.headers, b.messages, dropped
	return set
}

// load makes a set of messages whose text is elsewhere.
func (e *Encoder) load(messages []events.Message) *Set {
	set := e.sets.Get().(*Set)
	headers := 0
	for i := range messages {
		headers += len(messages[i].Headers)
	}
	set.Messages = slices.Grow(set.Messages[:0], len(messages))[:len(messages)]
	set.headers = slices.Grow(set.headers[:0], headers)
	for i := range messages {
		from, to := &messages[i], &set.Messages[i]
		*to = Message{key: from.Key, value: from.Value, event: i}
		to.Topic, to.Timestamp = from.Topic, from.Time
		first := len(set.headers)
		for _, header := range from.Headers {
			set.headers = append(set.headers, sarama.RecordHeader{Key: header.Key, Value: header.Value})
		}
		to.Headers = set.headers[first:len(set.headers):len(set.headers)]
		to.link()
		to.size = to.ByteSize(recordVersion)
	}
	return set
}

// batchEncoder builds one batch's messages.
type batchEncoder struct {
	*Encoder

	batch    *events.Batch
	text     []byte
	full     int
	headers  []sarama.RecordHeader
	messages []Message

	// What is the same in every message.
	token []byte
	ip    []byte
	now   []byte
	sent  []byte // the field sent_at
	tail  []byte // of the value, from the end of data to the beginning of the event's name
}

func (b *batchEncoder) common() {
	b.token = b.add(b.batch.Token)
	b.ip = b.add(b.batch.ClientIP)

	start := len(b.text)
	b.text = append(b.text, `}","now":"`...)
	now := len(b.text)
	b.text = b.batch.Received.UTC().AppendFormat(b.text, time.RFC3339Nano)
	b.now = b.since(now)
	if !b.batch.SentAt.IsZero() {
		sent := len(b.text)
		b.text = append(b.text, `","sent_at":"`...)
		b.text = b.batch.SentAt.UTC().AppendFormat(b.text, time.RFC3339Nano)
		b.sent = b.since(sent)
	}
	b.text = append(b.text, `","token":"`...)
	b.text = appendEscaped(b.text, b.token)
	b.text = append(b.text, `","event":"`...)
	b.tail = b.since(start)
}

// add copies s to the text and returns the copy.
func (b *batchEncoder) add(s string) []byte {
	start := len(b.text)
	b.text = append(b.text, s...)
	return b.since(start)
}

// since returns the text from start on.
func (b *batchEncoder) since(start int) []byte { return b.text[start:len(b.text):len(b.text)] }

// frame is what an event's messages have in common: where they go, and all they hold but data and identifier.
type frame struct {
	topic                                   string
	key, ip, name, distinctID, milliseconds []byte
	session                                 []byte // nil where there is none
}

// frame fills f, which is empty, with what the event's messages have in common.
func (b *batchEncoder) frame(event *events.Event, f *frame) {
	f.ip = b.ip
	if event.ClientIP != "" {
		f.ip = b.add(event.ClientIP)
	}
	f.name = b.add(event.Name)

	start := len(b.text)
	b.text = append(b.text, b.token...)
	b.text = append(b.text, ':')
	f.distinctID = b.add(event.DistinctID)
	key := b.since(start)
	if event.Cookieless {
		start = len(b.text)
		b.text = append(b.text, b.token...)
		b.text = append(b.text, ':')
		b.text = append(b.text, f.ip...)
		key = b.since(start)
	}
	if event.SessionID != "" {
		f.session = b.add(event.SessionID)
	}
	topic, keyed := b.topics.route(event)
	f.topic = topic
	switch {
	case event.Recording != nil:
		f.key = f.session
	case keyed:
		f.key = key
	}
	start = len(b.text)
	b.text = strconv.AppendInt(b.text, event.Timestamp.UnixMilli(), 10)
	f.milliseconds = b.since(start)
}

// open appends a value up to the beginning of data, within its braces.
func (b *batchEncoder) open(f *frame, id uuid.UUID) {
	b.text = append(b.text, `{"uuid":"`...)
	b.text = appendUUID(b.text, id)
	b.text = append(b.text, `","distinct_id":"`...)
	b.text = appendEscaped(b.text, f.distinctID)
	b.text = append(b.text, `","ip":"`...)
	b.text = appendEscaped(b.text, f.ip)
	b.text = append(b.text, `","data":"{`...)
}

// close appends what follows data, with its closing brace.
func (b *batchEncoder) close(f *frame, event *events.Event) {
	b.text = append(b.text, b.tail...)
	b.text = appendEscaped(b.text, f.name)
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
}

// event builds the event's message and returns its size; one that is over the limit is not kept.
func (b *batchEncoder) event(event *events.Event, index int) int {
	text, headers := len(b.text), len(b.headers)
	var f frame
	b.frame(event, &f)
	start := len(b.text)
	b.open(&f, event.UUID)
	b.text = appendData(b.text, event, f.name)
	b.close(&f, event)
	size := b.message(event, index, &f, b.since(start)).size
	if size > b.maxBytes {
		b.text, b.headers, b.messages = b.text[:text], b.headers[:headers], b.messages[:len(b.messages)-1]
	}
	return size
}

// heatmap builds the message of the event's heatmap data, which is an event of its own. It returns false if that is too large.
func (b *batchEncoder) heatmap(event *events.Event, index int) bool {
	companion := *event
	companion.UUID, companion.ClientUUID = uuid.NewSHA1(event.UUID, []byte(heatmapName)), false
	companion.Name, companion.Lane = heatmapName, events.LaneHeatmaps
	companion.Heatmap = nil
	companion.Raw.Properties, companion.Raw.Set, companion.Raw.SetOnce = event.Heatmap, nil, nil
	companion.Routing = events.Routing{SkipPerson: event.Routing.SkipPerson}
	return rawBytes(&companion) <= b.maxBytes && b.event(&companion, index) <= b.maxBytes
}

// message makes a value a message, at the end of messages.
func (b *batchEncoder) message(event *events.Event, index int, f *frame, value []byte) *Message {
	if len(b.messages) == cap(b.messages) {
		b.messages = slices.Grow(b.messages, 1)
		for i := range b.messages {
			b.messages[i].link()
		}
	}
	b.messages = b.messages[:len(b.messages)+1]
	message := &b.messages[len(b.messages)-1]
	*message = Message{}
	message.Topic, message.key, message.value, message.event = f.topic, f.key, value, index

	headers := len(b.headers)
	b.headers = append(b.headers,
		sarama.RecordHeader{Key: headerToken, Value: b.token},
		sarama.RecordHeader{Key: headerDistinctID, Value: f.distinctID},
		sarama.RecordHeader{Key: headerTimestamp, Value: f.milliseconds},
		sarama.RecordHeader{Key: headerEvent, Value: f.name},
		sarama.RecordHeader{Key: headerUUID, Value: value[uuidStart : uuidStart+uuidLength]},
		sarama.RecordHeader{Key: headerNow, Value: b.now},
	)
	if b.batch.Historical {
		b.headers = append(b.headers, sarama.RecordHeader{Key: headerHistorical, Value: textTrue})
	}
	if f.session != nil {
		b.headers = append(b.headers, sarama.RecordHeader{Key: headerSessionID, Value: f.session})
	}
	if event.Routing.SkipPerson {
		b.headers = append(b.headers, sarama.RecordHeader{Key: headerSkipPerson, Value: textTrue})
	}
	if event.Heatmap != nil {
		b.headers = append(b.headers, sarama.RecordHeader{Key: headerSkipHeatmap, Value: textTrue})
	}
	if event.Routing.DLQ != "" {
		reason := b.add(event.Routing.DLQ)
		start := len(b.text)
		b.text = b.batch.Received.UTC().AppendFormat(b.text, dlqTime)
		b.headers = append(b.headers,
			sarama.RecordHeader{Key: headerDLQReason, Value: reason},
			sarama.RecordHeader{Key: headerDLQStep, Value: textCapture},
			sarama.RecordHeader{Key: headerDLQTimestamp, Value: b.since(start)},
		)
	}
	message.Headers = b.headers[headers:len(b.headers):len(b.headers)]
	message.link()
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
	dst = appendTwiceEscaped(dst, name)
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
