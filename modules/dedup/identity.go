package dedup

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math/bits"
	"math/rand/v2"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/modules/store"
)

// The kinds of identity. Each is the first byte of what is hashed, so that the digest of one kind is never that of
// another: nobody can give an event a uuid that makes it the same as an event without one. The digests are kept in the
// store. A change of what is hashed needs kinds of its own, so that two releases can share a store.
const (
	// kindUUID: the client's uuid.
	kindUUID = 'u'
	// kindContent: all that the client said of the event.
	kindContent = 'c'
	// kindRecording: the snapshots of a recording, with its session and its window.
	kindRecording = 'r'
	// kindTriple: distinct_id, name and time.
	kindTriple = 't'
	// kindRepeated: a digest of kindContent or kindRecording, and how many events of the request have it before this
	// one.
	kindRepeated = 'n'
)

// hasher makes the digests of events. The hash is SHA-256, of which the digest is the first half: docs/decisions/0029
// says why.
type hasher struct {
	hash hash.Hash
	head []byte
	sum  [sha256.Size]byte
}

func newHasher() hasher { return hasher{hash: sha256.New(), head: make([]byte, 0, 512)} }

// identify returns the digest of an event, and whether equal events of a request are told apart by their number. ok is
// false for an event without an identity: the client has said nothing that would tell a second such event from a resent
// one.
func (h *hasher) identify(batch *events.Batch, event *events.Event, triple bool) (d store.Digest, numbered, ok bool) {
	switch {
	case event.Recording != nil:
		// A request may send the parts of a recording in other groups than before, and the event has the uuid of its
		// first part alone. So the uuid is not enough.
		if len(event.Recording.Items) == 0 && !event.ClientUUID {
			return d, false, false
		}
		return h.recording(event), true, true
	case triple && event.Lane != events.LaneLogs:
		time, ok := timeOf(batch, event)
		if !ok {
			return d, false, false
		}
		return h.triple(event, time), false, true
	case event.ClientUUID:
		return h.uuid(event), false, true
	default:
		var time int64
		if event.Raw.Timestamp == nil && !hasInsertID(event.Raw.Properties) {
			if batch.SentAt.IsZero() {
				return d, false, false
			}
			time = batch.SentAt.UnixNano()
		}
		return h.content(event, time), true, true
	}
}

func (h *hasher) uuid(event *events.Event) store.Digest {
	h.begin(kindUUID)
	h.head = append(h.head, event.UUID[:]...)
	return h.end()
}

// content hashes what the client said of an event. time is the time of the request, in nanoseconds, for an event that
// has no time of its own; else 0.
//
// The heatmap data were a part of the properties. The lengths of all parts stand in front, so no other event has the
// same bytes in sum.
func (h *hasher) content(event *events.Event, time int64) store.Digest {
	raw := &event.Raw
	parts := [...][]byte{
		raw.DistinctID, raw.Timestamp, raw.Offset, raw.Properties, raw.Set, raw.SetOnce, event.Heatmap,
	}
	h.begin(kindContent)
	h.number(uint64(time))
	h.number(uint64(len(event.Name)))
	for _, part := range parts {
		h.number(uint64(len(part)))
	}
	h.head = append(h.head, event.Name...)
	h.flush()
	for _, part := range parts {
		if len(part) > 0 {
			h.hash.Write(part)
		}
	}
	return h.end()
}

func (h *hasher) recording(event *events.Event) store.Digest {
	h.begin(kindRecording)
	var own uuid.UUID
	if event.ClientUUID {
		own = event.UUID
	}
	h.head = append(h.head, own[:]...)
	h.text(event.DistinctID)
	h.text(event.SessionID)
	h.number(uint64(len(event.Recording.WindowID)))
	h.number(uint64(len(event.Recording.Items)))
	h.flush()
	h.hash.Write(event.Recording.WindowID)
	for i := range event.Recording.Items {
		item := event.Recording.Items[i].JSON
		h.number(uint64(len(item)))
		h.flush()
		h.hash.Write(item)
	}
	return h.end()
}

// timeOf returns what a client said of the time of an event: its timestamp as it was sent, or else the time of the
// request with the offset of the event. ok is false if the client said nothing.
func timeOf(batch *events.Batch, event *events.Event) (time timeText, ok bool) {
	if event.Raw.Timestamp != nil {
		return timeText{text: event.Raw.Timestamp}, true
	}
	return timeText{text: event.Raw.Offset, sent: batch.SentAt.UnixNano()}, !batch.SentAt.IsZero()
}

type timeText struct {
	text []byte
	sent int64
}

func (h *hasher) triple(event *events.Event, time timeText) store.Digest {
	h.begin(kindTriple)
	h.text(event.DistinctID)
	h.text(event.Name)
	h.number(uint64(time.sent))
	h.number(uint64(len(time.text)))
	h.flush()
	h.hash.Write(time.text)
	return h.end()
}

// repeated returns the digest of the event that has n equal ones before it in its request.
func (h *hasher) repeated(of store.Digest, n uint32) store.Digest {
	h.begin(kindRepeated)
	h.head = append(h.head, of[:]...)
	h.number(uint64(n))
	return h.end()
}

// insertID is the property by which old SDKs tell events apart that have neither a uuid nor a time.
const insertID = "$insert_id"

func hasInsertID(properties []byte) bool {
	members := jsonscan.MembersOf(properties)
	for members.Next() {
		if string(members.Key) == insertID && string(members.Value) != "null" {
			return true
		}
	}
	return false
}

func (h *hasher) begin(kind byte) {
	h.hash.Reset()
	h.head = append(h.head[:0], kind)
}

func (h *hasher) number(n uint64) { h.head = binary.LittleEndian.AppendUint64(h.head, n) }

func (h *hasher) text(s string) {
	h.number(uint64(len(s)))
	h.head = append(h.head, s...)
}

// flush hashes the head, and empties it for more.
func (h *hasher) flush() {
	h.hash.Write(h.head)
	h.head = h.head[:0]
}

func (h *hasher) end() store.Digest {
	h.flush()
	return store.Digest(h.hash.Sum(h.sum[:0])[:len(store.Digest{})])
}

// table finds the digests of a request by their content. Its memory is used again.
type table struct {
	// slots hold the index of a digest plus one; 0 is free. There are at least twice as many slots as digests.
	slots []int32
	shift int
}

// secret spreads the digests over the slots. It differs in each process, so that nobody can send events whose digests
// all look for the same slot.
var secret = rand.Uint64() | 1

// reset makes the table empty, with room for n digests.
func (t *table) reset(n int) {
	size := 1 << bits.Len(uint(2*n))
	if cap(t.slots) < size {
		t.slots = make([]int32, size)
	}
	t.slots = t.slots[:size]
	clear(t.slots)
	t.shift = 64 - bits.TrailingZeros(uint(size))
}

// find returns the index of a digest among the digests, and whether it is there. If it is not, the caller is to append
// it with this index.
func (t *table) find(d store.Digest, digests []store.Digest) (index int, found bool) {
	at := int((binary.LittleEndian.Uint64(d[:8])^secret)*secret>>t.shift) & (len(t.slots) - 1)
	for ; ; at = (at + 1) & (len(t.slots) - 1) {
		i := t.slots[at]
		if i == 0 {
			t.slots[at] = int32(len(digests) + 1)
			return len(digests), false
		}
		if digests[i-1] == d {
			return int(i - 1), true
		}
	}
}
