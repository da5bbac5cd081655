package encode

import (
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
)

// longestChanging is the greatest total length of the texts in a message that may differ when a client sends the same
// recording again: the address, now (as a field and as a header), sent_at with its field's name, and the timestamp.
const (
	longestAddress  = len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")
	longestTime     = len("2006-01-02T15:04:05.999999999Z")
	longestChanging = longestAddress + 4*longestTime + len(`","sent_at":"`)
)

// recording builds the messages of a recording: one, or as many as its snapshots need, each as full as possible. The
// first message has the event's identifier. The identifier of message number n is derived from the event's and n.
//
// The recording begins where the cursor is. If the limit has no memory for another message, recording moves the cursor
// to where it has stopped. Otherwise it leaves the cursor at the event, without parts.
//
// Every message repeats the part that the snapshots have in common. If that part takes more than half of a message,
// recording rejects the event: otherwise the size of the messages would have no bound.
func (b *batchEncoder) recording(event *events.Event, from *Cursor) {
	index := from.event
	text, headers := len(b.text), len(b.headers)
	var f frame
	b.frame(event, &f)
	start := len(b.text)
	b.open(&f, event.UUID)
	b.text = appendRecordingHead(b.text, event, &f)
	items := len(b.text)
	b.text = appendRecordingTail(b.text, event)
	b.close(&f, event)
	value := b.since(start)
	head, tail := value[:items-start], value[items-start:]

	// The message without snapshots is built only to be measured. A text that may differ the next time counts as if it
	// had its greatest length. So a recording that is sent again is split at the same places, and a part's identifier
	// always means the same snapshots.
	size := b.message(event, index, &f, value)
	b.takeBack(headers)
	changing := len(f.ip) + 2*len(b.now) + len(b.sent) + len(event.Timestamp.UTC().Format(time.RFC3339Nano))
	room := b.maxBytes - size - max(0, longestChanging-changing)
	if room < b.maxBytes/2 {
		b.text = b.text[:text]
		event.Reject(events.ReasonTooLarge, events.Errorf(events.TooLarge,
			"the recording makes a message of %d bytes before its first snapshot, more than half of the limit of %d",
			size, b.maxBytes))
		return
	}

	rest, built := event.Recording.Items[from.item:], len(b.messages)
	part := from.parts + 1
	for ; part == 1 || len(rest) > 0; part++ {
		id := event.UUID
		if part > 1 {
			id = uuid.NewSHA1(event.UUID, strconv.AppendInt(nil, int64(part), 10))
		}
		n, length := fit(event, rest, room)
		if len(b.messages) > built && b.bytes()+int64(len(value)+length+spareText)+messageSize > b.limit {
			from.item, from.parts = len(event.Recording.Items)-len(rest), part-1
			return
		}
		b.reserve(len(value)+length, len(value)+length+spareText)
		start := len(b.text)
		b.text = append(b.text, head[:uuidStart]...)
		b.text = appendUUID(b.text, id)
		b.text = append(b.text, head[uuidStart+uuidLength:]...)
		for i := range rest[:n] {
			if i > 0 {
				b.text = append(b.text, ',')
			}
			b.text = appendEscaped(b.text, rest[i].JSON)
		}
		b.text = append(b.text, tail...)
		b.message(event, index, &f, b.since(start))
		rest = rest[n:]
	}
	from.item, from.parts = 0, 0
}

// bytes returns about how many bytes the set takes so far.
func (b *batchEncoder) bytes() int64 {
	return int64(b.full+cap(b.text)) + messageSize*int64(len(b.messages))
}

// usualSnapshots returns how much text the snapshots of the first message usually make.
func (e *Encoder) usualSnapshots(event *events.Event) int {
	text := 0
	for i := range event.Recording.Items {
		if text += 1 + len(event.Recording.Items[i].JSON)*5/4; text > e.maxBytes {
			return e.maxBytes
		}
	}
	return text
}

// spareText is how much text is usually written before a recording's first message. A new piece of text has room for a
// message and for this text. So when the piece is recycled, it is large enough for the whole of such a batch.
const spareText = 4 << 10

// reserve makes room for n bytes of text. If the present piece of text has too little room, reserve begins a new piece
// of the given size. It copies nothing: earlier messages refer to the old piece and keep it in memory, so a copy would
// only double the bytes.
func (b *batchEncoder) reserve(n, size int) {
	if cap(b.text)-len(b.text) < n {
		b.full += cap(b.text)
		b.text = make([]byte, 0, size)
	}
}

// fit returns how many of the snapshots in rest fit into room bytes of a message, and how many bytes they take. It
// replaces a snapshot that is larger than room by a mark.
func fit(event *events.Event, rest []events.Snapshot, room int) (n, size int) {
	for ; n < len(rest); n++ {
		length := len(rest[n].JSON)
		if length <= room {
			length = escapedLen(rest[n].JSON)
		}
		if length > room {
			rest[n].JSON = tooLargeMark(event, &rest[n])
			event.Notes |= events.NoteSnapshotReplaced
			length = escapedLen(rest[n].JSON)
		}
		if n > 0 {
			length++ // the comma
		}
		if size+length > room {
			break
		}
		size += length
	}
	return n, size
}

// longestNumber is more digits than a meaningful time has.
const longestNumber = 32

// tooLargeMark returns the mark for a snapshot that is too large for a message: an rrweb event of type custom.
func tooLargeMark(event *events.Event, snapshot *events.Snapshot) []byte {
	mark := []byte(`{"type":5,"timestamp":`)
	if at := snapshot.Timestamp; len(at) > 0 && len(at) <= longestNumber &&
		(at[0] == '-' || at[0] >= '0' && at[0] <= '9') {
		mark = append(mark, at...)
	} else {
		mark = strconv.AppendInt(mark, event.Timestamp.UnixMilli(), 10)
	}
	mark = append(mark, `,"data":{"tag":"snapshot_too_large","payload":{"bytes":`...)
	mark = strconv.AppendInt(mark, int64(len(snapshot.JSON)), 10)
	return append(mark, `}}}`...)
}

// appendRecordingHead appends a recording's data, without the braces, up to the first snapshot.
func appendRecordingHead(dst []byte, event *events.Event, f *frame) []byte {
	dst = append(dst, `\"event\":\"`...)
	dst = appendTwiceEscaped(dst, f.name)
	dst = append(dst, `\",\"properties\":{\"distinct_id\":\"`...)
	dst = appendTwiceEscaped(dst, f.distinctID)
	dst = append(dst, `\",\"$session_id\":\"`...)
	dst = appendTwiceEscaped(dst, f.session)
	dst = append(dst, `\",\"$window_id\":`...)
	if window := event.Recording.WindowID; window != nil {
		dst = appendEscaped(dst, window)
	} else {
		dst = append(dst, `\"`...)
		dst = appendTwiceEscaped(dst, f.session)
		dst = append(dst, `\"`...)
	}
	dst = append(dst, `,\"$snapshot_source\":\"`...)
	dst = appendTwiceEscaped(dst, []byte(event.Recording.Source))
	return append(dst, `\",\"$snapshot_items\":[`...)
}

// appendRecordingTail appends the rest of a recording's data.
func appendRecordingTail(dst []byte, event *events.Event) []byte {
	dst = append(dst, `],\"$lib\":\"`...)
	dst = appendTwiceEscaped(dst, []byte(event.Recording.Lib))
	dst = append(dst, `\"`...)
	if event.Recording.Host != nil {
		dst = append(dst, `,\"$snapshot_host\":`...)
		dst = appendEscaped(dst, event.Recording.Host)
	}
	return append(dst, '}')
}

// boundRecording returns an upper bound of the bytes that the messages of a recording take. frame is the most that a
// message takes without snapshots.
//
// A message ends when the next snapshot does not fit into it. So any two neighbouring messages together hold more bytes
// of snapshots than one message has room for, and that room is at least half of the limit. This bounds the number of
// messages.
func (e *Encoder) boundRecording(event *events.Event, frame int64) int64 {
	snapshots := int64(0)
	for i := range event.Recording.Items {
		snapshots += 1 + int64(min(2*len(event.Recording.Items[i].JSON), e.maxBytes))
	}
	parts := 1 + min(int64(len(event.Recording.Items)), 4*snapshots/int64(e.maxBytes))
	return snapshots + parts*(min(frame, int64(e.maxBytes/2))+3*messageSize+spareText)
}
