package encode

import (
	"encoding/hex"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
)

// Encoder builds the messages of events. It is safe for concurrent use.
//
// A message's value is a JSON object with the fields uuid, distinct_id, ip, data, now, sent_at (if the client said),
// token, event, timestamp, is_cookieless_mode and historical_migration (if true), in this order. Field data is a string
// that holds the event's JSON as the client sent it: token, distinct_id, uuid (null if the client made none), event,
// properties, timestamp, offset, $set and $set_once. A field that the client left out is left out here too.
//
// The topic is that of the event's lane, unless Routing names another. The key is "token:distinct_id", "token:ip" for a
// cookieless event, and the session's id for a recording. An event of the main stream or of an overflow has no key
// where Routing says that its order does not matter. The headers are token, distinct_id, timestamp (milliseconds since
// 1970), event, uuid and now. Where they apply, there are also historical_migration, session_id,
// force_disable_person_processing, skip_heatmap_processing, dlq_reason, dlq_step, dlq_timestamp, dlq_topic (the
// topic that the event was meant for) and dlq_rule (the rule of the operator's that set the event aside).
//
// Some events make more than one message; the messages of one event follow one another. An event with heatmap data
// makes a $$heatmap event behind its own, which is left out if it is too large. A recording that is too large for one
// message makes as many as it needs. The identifiers of the further messages are derived from the event's, so an event
// that is sent again makes the same identifiers.
type Encoder struct {
	topics   produce.Topics
	maxBytes int
	sets     [setClasses]sync.Pool
}

// NewEncoder returns an encoder for the topics and the limit of a message's size in settings.
func NewEncoder(settings produce.Settings) *Encoder {
	return &Encoder{topics: settings.Topics, maxBytes: settings.MaxMessageBytes}
}

// Set is the messages of one batch and the memory that they share. The text of all messages is one allocation. All
// headers are another, and so are the two lists. So a further message costs no allocation. Only a recording, or JSON
// with unusually many quotes, needs more pieces of text.
type Set struct {
	Messages []produce.Message

	// Events[i] is the index in the batch of the event that message i belongs to. The messages of one event follow one
	// another.
	Events []int

	// HeatmapsDropped is how many events have lost their heatmap data, because the message for it would have been too
	// large.
	HeatmapsDropped int

	text    []byte
	full    int // bytes of earlier pieces of text, which the messages refer to as well
	headers []produce.Header
}

// Bytes returns how many bytes of memory the set takes, whatever part of them its messages need.
func (s *Set) Bytes() int64 {
	return int64(s.full+cap(s.text)) + int64(cap(s.headers))*headerSize +
		int64(max(cap(s.Messages), cap(s.Events)))*itemSize
}

const (
	// minPooledText and maxPooledText are the sizes of the smallest and the largest text that is kept for another
	// batch. A set is kept with others of its size, so that a small batch does not get, and hold, the memory of a large
	// one.
	minPooledText = 4 << 10
	maxPooledText = 1 << 20

	setClasses = 9 // from minPooledText to maxPooledText in powers of two
)

// classOf returns the class of the sets whose text has at least so many bytes.
func classOf(text int) int { return max(0, bits.Len(uint(text-1))-bits.Len(minPooledText-1)) }

// set returns a set whose text has room for so many bytes, or an empty one.
func (e *Encoder) set(text int) *Set {
	if text <= maxPooledText {
		if set, ok := e.sets[classOf(text)].Get().(*Set); ok {
			return set
		}
		return &Set{text: make([]byte, 0, minPooledText<<classOf(text))}
	}
	return new(Set)
}

// Recycle takes back the memory of a set for another batch. From then on nobody may use the set or its messages. If a
// caller does not know whether they are still used, it leaves the set to the garbage collector instead.
func (e *Encoder) Recycle(set *Set) {
	if text := cap(set.text); set.full == 0 && text >= minPooledText && text <= maxPooledText {
		class := classOf(text)
		if minPooledText<<class > text {
			class-- // The text is too small for some that want its class.
		}
		e.sets[class].Put(set)
	}
}

var (
	headerToken       = []byte("token")
	headerDistinctID  = []byte("distinct_id")
	headerTimestamp   = []byte("timestamp")
	headerEvent       = []byte("event")
	headerUUID        = []byte("uuid")
	headerNow         = []byte("now")
	headerHistorical  = []byte("historical_migration")
	headerSessionID   = []byte("session_id")
	headerSkipPerson  = []byte("force_disable_person_processing")
	headerSkipHeatmap = []byte("skip_heatmap_processing")
	headerDLQReason   = []byte(produce.HeaderDLQReason)
	headerDLQStep     = []byte(produce.HeaderDLQStep)
	headerDLQTime     = []byte(produce.HeaderDLQTime)
	headerDLQTopic    = []byte(produce.HeaderDLQTopic)
	headerDLQRule     = []byte(produce.HeaderDLQRule)
	textTrue          = []byte("true")
	textCapture       = []byte("capture")
)

const (
	maxHeaders = 15
	uuidLength = 36
	uuidStart  = len(`{"uuid":"`) // where the identifier starts in a value
	// textPerEvent is the most text of a message besides the event's own: field names, times, identifiers.
	textPerEvent = 640
	// textPerBatch is the most text that is made once for a batch, besides the batch's token and address.
	textPerBatch = 512
	// messageSize is how many bytes a message takes besides its text.
	messageSize = itemSize + maxHeaders*headerSize
	headerSize  = int64(unsafe.Sizeof(produce.Header{}))
	itemSize    = int64(unsafe.Sizeof(produce.Message{}) + unsafe.Sizeof(int(0)))

	// countedBesideText is the most bytes that Message.Size counts besides the message's own text: the names of
	// headers, the values that messages share, and the bytes that Kafka adds.
	countedBesideText = 448

	// heatmapName is the name of the events that hold only heatmap data.
	heatmapName = "$$heatmap"
)

// Cursor is a place in a batch: how far its events have become messages. The zero Cursor is the batch's beginning.
type Cursor struct {
	// event is the index of the next event. If a part of it, a recording, has become messages already, item is the
	// index of the next snapshot, and parts is how many messages there are.
	event, item, parts int
}

// IsEnd reports whether all events of the batch have become messages.
func (c Cursor) IsEnd(batch *events.Batch) bool { return c.event >= len(batch.Events) }

// Within reports whether the cursor is within the event of the given index, of which there are more messages to come.
func (c Cursor) Within(index int) bool { return c.event == index && c.parts > 0 }

// Bound returns an upper bound of the bytes that Next allocates for the rest of the batch, and of the Set.Bytes of its
// result, if that is at most limit. Else it returns limit, or more if limit is less than one message needs.
func (e *Encoder) Bound(batch *events.Batch, from Cursor, limit int64) int64 {
	_, bound := e.portion(batch, from, limit)
	return bound
}

// portion returns how far the rest of the batch becomes messages under the limit, as the index of the first event that
// does not, and an upper bound of the bytes for that. A recording that is too large for the limit is a portion of its
// own.
func (e *Encoder) portion(batch *events.Batch, from Cursor, limit int64) (end int, bound int64) {
	bound = int64(commonText(batch)) + minPooledText
	largest := int64(0)
	for end = from.event; end < len(batch.Events); end++ {
		event := &batch.Events[end]
		raw := rawBytes(event)
		if !event.Pending() || raw > e.maxBytes {
			continue
		}
		text := int64(e.maxText(batch, event, raw))
		more := messageSize + countedBesideText + text
		if event.Heatmap != nil {
			more += messageSize + countedBesideText
		}
		least := more
		if event.Recording != nil {
			more += e.boundRecording(event, messageSize+text)
			least += 2 * (int64(e.maxBytes) + messageSize + spareText)
		}
		// An event that does not fit into a piece of text leaves the piece's end unused.
		all := bound + more + max(largest, text)
		all += min(2*all, 2*maxPooledText)
		if all <= limit {
			bound, largest = bound+more, max(largest, text)
			continue
		}
		if end > from.event {
			break
		}
		if event.Recording == nil {
			return end + 1, all
		}
		return end + 1, max(limit, bound+least)
	}
	// A set that is used again may be twice as large as it has to be, and so may its list of headers.
	return end, bound + largest + min(2*(bound+largest), 2*maxPooledText)
}

// commonText returns the most text that is made once for all messages of the batch.
func commonText(batch *events.Batch) int {
	return textPerBatch + 6*(len(batch.Token)+len(batch.ClientIP))
}

// maxText returns the most text of the event's messages, without the snapshots of a recording. raw is the event's
// rawBytes.
func (e *Encoder) maxText(batch *events.Batch, event *events.Event, raw int) int {
	frame := textPerEvent + 16*(len(event.Name)+len(event.DistinctID)+len(event.ClientIP)+len(event.SessionID)+
		len(event.Routing.DLQ)+len(event.Routing.Rule)+len(batch.Token))
	if event.Routing.DLQ != "" {
		frame += produce.LongestTopicName
	}
	if recording := event.Recording; recording != nil {
		return frame + 16*(len(recording.Source)+len(recording.Lib)) + 2*raw
	}
	if event.Heatmap != nil && len(event.Heatmap) <= e.maxBytes {
		return 2*(frame+raw) + 2*(len(event.Heatmap)+raw-len(event.Raw.Properties))
	}
	return frame + 2*raw
}

// rawBytes returns the length of the event's own JSON, which is the least text of its message. For a recording it
// returns the length of the JSON that every message repeats.
func rawBytes(event *events.Event) int {
	if recording := event.Recording; recording != nil {
		return len(event.Name) + len(recording.WindowID) + len(recording.Host) + len(recording.Source) +
			len(recording.Lib)
	}
	raw := &event.Raw
	return len(event.Name) + len(raw.Token) + len(raw.DistinctID) + len(raw.Timestamp) + len(raw.Offset) +
		len(raw.Properties) + len(raw.Set) + len(raw.SetOnce)
}

// Encode builds the messages of all of the batch's pending events, as Next does.
func (e *Encoder) Encode(batch *events.Batch) *Set {
	var from Cursor
	return e.Next(batch, &from, math.MaxInt64)
}

// Next builds the messages of the batch's pending events, in their order, from the cursor on, and moves the cursor. It
// builds as many as the limit has memory for, in bytes, and one at least; see Bound. It rejects an event that is too
// large. It replaces a snapshot that is too large by a mark, and sets events.NoteSnapshotReplaced on the event. The set
// shares no memory with the batch.
func (e *Encoder) Next(batch *events.Batch, from *Cursor, limit int64) *Set {
	end, bound := e.portion(batch, *from, limit)
	plan := e.plan(batch, from.event, end)
	text := commonText(batch) + plan.text()
	set := e.set(text)
	b := batchEncoder{
		Encoder:  e,
		text:     slices.Grow(set.text[:0], text),
		headers:  slices.Grow(set.headers[:0], plan.messages*maxHeaders),
		messages: slices.Grow(set.Messages[:0], plan.messages),
		origins:  slices.Grow(set.Events[:0], plan.messages),
		batch:    batch,
		limit:    bound,
	}
	b.common()
	dropped := 0
	for ; from.event < end; *from = (Cursor{event: from.event + 1}) {
		i := from.event
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		raw := rawBytes(event)
		if raw > e.maxBytes {
			event.Reject(events.ReasonTooLarge,
				events.Errorf(events.TooLarge, "the event is larger than %d bytes", e.maxBytes))
			continue
		}
		most := e.maxText(batch, event, raw)
		b.reserve(most, plan.most)
		plan.most -= most
		if event.Recording != nil {
			if b.recording(event, from); from.parts > 0 {
				break
			}
			continue
		}
		if size := b.event(event, i); size > e.maxBytes {
			event.Reject(events.ReasonTooLarge, events.Errorf(events.TooLarge,
				"the event makes a message of %d bytes, the limit is %d", size, e.maxBytes))
			continue
		}
		if event.Heatmap != nil && !b.heatmap(event, i) {
			dropped++
		}
	}
	set.text, set.full, set.headers = b.text, b.full, b.headers
	set.Messages, set.Events, set.HeatmapsDropped = b.messages, b.origins, dropped
	return set
}

// plan says how much memory a batch needs: how many messages it makes if no recording is split, and how much text.
type plan struct {
	messages int
	// usual is how much text the events make if about every fourth byte of their JSON has to be escaped. Few need more.
	usual int
	// most is how much text the events make if every byte has to be escaped.
	most int
	// largest is the greatest share of a single event in most.
	largest int
	// snapshots is how much text the snapshots of recordings usually make, up to a message of each.
	snapshots int
}

// text returns how much text to allocate at once: the usual amount, and room for the worst case of a single event.
// Encode begins an event only if the worst case of that event fits. So the last event needs all of that room, although
// it will hardly use it.
func (p *plan) text() int { return min(p.usual+p.largest, p.most) + p.snapshots }

func (e *Encoder) plan(batch *events.Batch, from, end int) plan {
	var p plan
	for i := from; i < end; i++ {
		event := &batch.Events[i]
		raw := rawBytes(event)
		if !event.Pending() || raw > e.maxBytes {
			continue
		}
		p.messages++
		p.usual += textPerEvent + raw + raw/4 + len(event.DistinctID)
		if event.Heatmap != nil && len(event.Heatmap) <= e.maxBytes {
			p.messages++
			p.usual += textPerEvent + len(event.Heatmap) + len(event.Heatmap)/4
		}
		most := e.maxText(batch, event, raw)
		p.most += most
		p.largest = max(p.largest, most)
		if event.Recording != nil {
			p.snapshots += e.usualSnapshots(event)
		}
	}
	return p
}

// batchEncoder builds one batch's messages.
type batchEncoder struct {
	*Encoder

	batch    *events.Batch
	limit    int64 // of the bytes that the set may take
	text     []byte
	full     int
	headers  []produce.Header
	messages []produce.Message
	origins  []int // Set.Events

	// The following texts are the same in every message.
	token []byte
	ip    []byte
	now   []byte
	sent  []byte // the field sent_at
	tail  []byte // the part of a value from the end of data to the beginning of the event's name
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

// frame is what the messages of an event have in common: the topic, and all fields but data and the identifier.
type frame struct {
	topic                                   string
	key, ip, name, distinctID, milliseconds []byte
	session                                 []byte // nil where there is none
}

// frame fills f, which is empty, with what the messages of the event have in common.
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
	topic, keyed := route(&b.topics, event)
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

// open appends a value up to and including the opening brace of data.
func (b *batchEncoder) open(f *frame, id uuid.UUID) {
	b.text = append(b.text, `{"uuid":"`...)
	b.text = appendUUID(b.text, id)
	b.text = append(b.text, `","distinct_id":"`...)
	b.text = appendEscaped(b.text, f.distinctID)
	b.text = append(b.text, `","ip":"`...)
	b.text = appendEscaped(b.text, f.ip)
	b.text = append(b.text, `","data":"{`...)
}

// close appends the part of a value behind data, with the closing brace of the value.
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

// event builds the event's message and returns its size. It drops a message that is over the limit.
func (b *batchEncoder) event(event *events.Event, index int) int {
	text, headers := len(b.text), len(b.headers)
	var f frame
	b.frame(event, &f)
	start := len(b.text)
	b.open(&f, event.UUID)
	b.text = appendData(b.text, event, f.name)
	b.close(&f, event)
	size := b.message(event, index, &f, b.since(start))
	if size > b.maxBytes {
		b.text = b.text[:text]
		b.takeBack(headers)
	}
	return size
}

// heatmap builds a message of the event's heatmap data, as an event of its own. It returns false if that message would
// be too large.
func (b *batchEncoder) heatmap(event *events.Event, index int) bool {
	companion := *event
	companion.UUID, companion.ClientUUID = uuid.NewSHA1(event.UUID, []byte(heatmapName)), false
	companion.Name, companion.Lane = heatmapName, events.LaneHeatmaps
	companion.Heatmap = nil
	companion.Raw.Properties, companion.Raw.Set, companion.Raw.SetOnce = event.Heatmap, nil, nil
	companion.Routing = events.Routing{SkipPerson: event.Routing.SkipPerson}
	return rawBytes(&companion) <= b.maxBytes && b.event(&companion, index) <= b.maxBytes
}

// message appends a message of the given value and returns its size.
func (b *batchEncoder) message(event *events.Event, index int, f *frame, value []byte) int {
	headers := len(b.headers)
	b.headers = append(b.headers,
		produce.Header{Key: headerToken, Value: b.token},
		produce.Header{Key: headerDistinctID, Value: f.distinctID},
		produce.Header{Key: headerTimestamp, Value: f.milliseconds},
		produce.Header{Key: headerEvent, Value: f.name},
		produce.Header{Key: headerUUID, Value: value[uuidStart : uuidStart+uuidLength]},
		produce.Header{Key: headerNow, Value: b.now},
	)
	if b.batch.Historical {
		b.headers = append(b.headers, produce.Header{Key: headerHistorical, Value: textTrue})
	}
	if f.session != nil {
		b.headers = append(b.headers, produce.Header{Key: headerSessionID, Value: f.session})
	}
	if event.Routing.SkipPerson {
		b.headers = append(b.headers, produce.Header{Key: headerSkipPerson, Value: textTrue})
	}
	if event.Heatmap != nil {
		b.headers = append(b.headers, produce.Header{Key: headerSkipHeatmap, Value: textTrue})
	}
	if event.Routing.DLQ != "" {
		reason := b.add(event.Routing.DLQ)
		start := len(b.text)
		b.text = b.batch.Received.UTC().AppendFormat(b.text, produce.DLQTimeFormat)
		b.headers = append(b.headers,
			produce.Header{Key: headerDLQReason, Value: reason},
			produce.Header{Key: headerDLQStep, Value: textCapture},
			produce.Header{Key: headerDLQTime, Value: b.since(start)},
			produce.Header{Key: headerDLQTopic, Value: b.add(intended(&b.topics, event))},
		)
		if event.Routing.Rule != "" {
			b.headers = append(b.headers, produce.Header{Key: headerDLQRule, Value: b.add(event.Routing.Rule)})
		}
	}
	b.messages = append(b.messages, produce.Message{
		Topic: f.topic, Key: f.key, Value: value, Headers: b.headers[headers:len(b.headers):len(b.headers)],
	})
	b.origins = append(b.origins, index)
	return b.messages[len(b.messages)-1].Size()
}

// takeBack removes the last message. headers is how many headers there were before it.
func (b *batchEncoder) takeBack(headers int) {
	last := len(b.messages) - 1
	b.headers, b.messages, b.origins = b.headers[:headers], b.messages[:last], b.origins[:last]
}

// appendData appends the event's JSON without its braces, escaped for a place inside a JSON string.
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
