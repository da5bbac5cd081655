package otlp

import (
	"context"
	"fmt"
	"strconv"
	"time"
	"unsafe"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/posthog"
)

// batch makes the events of a request.
type batch struct {
	events.Batch
	*request

	writer writer
	trim   trimmer
	// ctx ends when the time for making events is over.
	ctx context.Context
	// made counts the events of one identity, so that equal events in a request get UUIDs of their own.
	made map[uuid.UUID]int
}

// eventSize is the memory that an event takes beside its text, in bytes.
const eventSize = int64(unsafe.Sizeof(events.Event{}) + unsafe.Sizeof(uuid.UUID{}) + unsafe.Sizeof(0))

var errSlow = events.Errorf(events.Unavailable,
	"service unavailable: the request takes too long to process: send smaller batches")

// grow reserves the memory for n events and makes room for them.
func (b *batch) grow(n int) *events.Error {
	if fault := b.lease.Take(int64(n) * eventSize); fault != nil {
		return fault
	}
	b.Events = make([]events.Event, 0, n)
	b.made = make(map[uuid.UUID]int, n)
	return nil
}

// nothing says why the request became no events, unlike what its sender may think. ignored is how many items were left
// out because they are not what the path takes.
func (b *batch) nothing(ignored int) string {
	if ignored > 0 {
		return fmt.Sprintf("nothing was kept: the request holds no %s about AI (others: %d)", b.kind.items, ignored)
	}
	return "nothing was kept: the request holds no " + b.kind.items
}

// source is what an event is made of beside its properties.
type source struct {
	name string
	lane events.Lane
	// user names the user, else the resource's user does, which is JSON. If both are empty, fallback stands for the
	// user.
	user, fallback string
	resourceUser   []byte
	// nanos is when the event happened, in nanoseconds since 1970; 0 is unknown.
	nanos uint64
	// impersonal is set for an event that makes no person, even if it names the user.
	impersonal bool
	session    string
	// space is the namespace of the event's UUID, and identity the text that the UUID is made of. With an empty
	// identity the UUID is made of the event itself.
	space    uuid.UUID
	identity string
}

// add makes an event of its source and of the properties, which write writes. It rejects an event that is too large and
// returns nil. Any error that it returns concerns the whole request.
func (b *batch) add(from source, write func(*writer)) *events.Error {
	if b.ctx.Err() != nil {
		return errSlow
	}
	b.Events = append(b.Events, events.Event{
		Name: from.name, Lane: from.lane, SessionID: from.session, ClientUUID: true,
	})
	event := &b.Events[len(b.Events)-1]
	w := &b.writer

	w.begin()
	write(w)
	properties, err := w.end()
	event.UUID, event.Raw.Properties = b.identify(from, properties), properties
	if err == nil {
		err = b.name(event, from)
	}
	if err == nil {
		event.Routing.SkipPerson = event.Routing.SkipPerson || from.impersonal
		at := timeOf(from.nanos)
		posthog.Clock{Now: b.Received}.Date(event, posthog.Stamp{At: at, Known: !at.IsZero()})
		w.begin()
		w.time(event.Timestamp)
		event.Raw.Timestamp, err = w.end()
	}
	switch {
	case err == nil:
		return nil
	case b.spares(err):
		event.Reject(events.ReasonTooLarge, err)
		return nil
	default:
		return err
	}
}

// spares reports whether the writer's error concerns one value, and not the whole request.
func (b *batch) spares(err *events.Error) bool {
	return err.Code == events.TooLarge && err != errManyBytes
}

// name gives the event its user's name by the protocol's rules. A blank name names nobody.
func (b *batch) name(event *events.Event, from source) (err *events.Error) {
	raw := from.resourceUser
	if from.user != "" {
		raw, err = b.encode(from.user)
	} else {
		b.writer.left -= len(raw) // The event's message repeats it.
	}
	if err == nil && (raw == nil || !posthog.Identify(event, raw)) {
		event.Routing.SkipPerson = true
		if from.fallback == "" {
			from.fallback = event.UUID.String()
		}
		if raw, err = b.encode(from.fallback); err == nil {
			posthog.Identify(event, raw)
		}
	}
	event.Raw.DistinctID = raw
	return err
}

// encode returns a text as JSON, and nil for an empty text.
func (b *batch) encode(text string) ([]byte, *events.Error) {
	if text == "" {
		return nil, nil
	}
	b.writer.begin()
	b.writer.string(text)
	return b.writer.end()
}

// identify makes an event's UUID. The same event of a request that is sent again gets the same UUID.
func (b *batch) identify(from source, properties []byte) uuid.UUID {
	if from.identity != "" {
		return uuid.NewSHA1(from.space, []byte(from.identity))
	}
	space := uuid.NewSHA1(from.space, []byte(b.Token+" "+strconv.FormatUint(from.nanos, 10)))
	id := uuid.NewSHA1(space, properties)
	n := b.made[id]
	b.made[id]++
	if n > 0 {
		id = uuid.NewSHA1(id, strconv.AppendInt(nil, int64(n), 10))
	}
	return id
}

// timeOf returns the time so many nanoseconds after the beginning of 1970, or the zero time for 0.
func timeOf(nanos uint64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	const second = uint64(time.Second)
	return time.Unix(int64(nanos/second), int64(nanos%second)).UTC()
}
