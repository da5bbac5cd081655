package posthog

import (
	"time"

	"github.com/opencapture/capture/modules/events"
)

// maxFuture is how far ahead of the service's clock an event's time may lie before it is taken for wrong.
const maxFuture = 23 * time.Hour

// firstYear is the first year of which a time is believed. An earlier time is kept, but noted: it is an empty value, a
// date in another calendar, or counts from something else than 1970.
const firstYear = 1971

// Clock is what is known about the time of a request: the service's now, and the client's if the client has sent it.
type Clock struct {
	// Now is when the head of the request was there: a slow upload says nothing about the client's clock.
	Now time.Time
	// SentAt is what the client's clock said at this attempt to send the request. Zero: unknown.
	SentAt time.Time
	// FirstSentAt is what the client's clock said at an earlier attempt. The events' offsets count back from that time.
	// Zero: this is the first attempt, or unknown.
	FirstSentAt time.Time
	// Unread is set if the client has sent a time of sending that cannot be read.
	Unread bool
}

// newClock returns the clock of a request of v0. body is the sent_at in its body, which a client writes anew for each
// attempt. With a retry_count the time in the query may be that of the first attempt: its distance from now is then
// the delay of the retry, and not the skew of the client's clock.
func newClock(now, body time.Time, unread bool, query query) Clock {
	clock := Clock{Now: now, SentAt: body, Unread: unread}
	switch {
	case query.retryCount > 0:
		clock.FirstSentAt = query.sentAt
	case body.IsZero():
		clock.SentAt = query.sentAt
	}
	return clock
}

// Stamp is when an event happened, as its client says. The zero Stamp says nothing.
type Stamp struct {
	// At is the event's timestamp, if Known says that there is one and that it can be read.
	At    time.Time
	Known bool
	// Unread is set if the client has sent a time that cannot be read.
	Unread bool
	// IgnoreSentAt is set if the client asks the service not to correct its clock.
	IgnoreSentAt bool
	// offset is how many milliseconds before the sending the event happened, if hasOffset says so. It goes before At.
	offset    int64
	hasOffset bool
}

// ReadStamp reads the JSON value of an event's timestamp: a text in any of the forms that the protocol allows, or a
// number. The value is nil if there is none.
func ReadStamp(raw []byte, now time.Time) (stamp Stamp) {
	if raw != nil {
		stamp.At, stamp.Known = readTime(raw, now)
		stamp.Unread = !stamp.Known
	}
	return stamp
}

// ReadSentAt reads the JSON value of the time at which a request was sent. The value is nil if there is none. unread is
// set if it cannot be read. The zero times of Go and .NET, and of whatever counts from 1970, are none.
func ReadSentAt(raw []byte, now time.Time) (sentAt time.Time, unread bool) {
	if raw == nil {
		return time.Time{}, false
	}
	sentAt, _ = readTime(raw, now)
	if sentAt.IsZero() || sentAt.Equal(time.Unix(0, 0)) {
		return time.Time{}, true
	}
	return sentAt, false
}

// Date gives the event its time, and notes what is wrong with the time.
func (c Clock) Date(event *events.Event, stamp Stamp) {
	t, notes := c.eventTime(stamp)
	event.Timestamp = t
	event.Notes |= notes
}

// eventTime computes when an event happened, and what is to be noted about that.
func (c Clock) eventTime(stamp Stamp) (t time.Time, notes events.Notes) {
	sentAt, firstSentAt := c.SentAt, c.FirstSentAt
	if stamp.IgnoreSentAt {
		sentAt, firstSentAt = time.Time{}, time.Time{}
	} else if c.Unread {
		notes |= events.NoteSentAtUnread
	}
	t = c.Now
	switch {
	case stamp.hasOffset && !firstSentAt.IsZero() && sentAt.IsZero():
		t = before(firstSentAt, stamp.offset)
	case stamp.hasOffset && !firstSentAt.IsZero() && firstSentAt.Before(sentAt):
		t = before(shift(c.Now, firstSentAt, sentAt), stamp.offset)
	case stamp.hasOffset:
		t = before(c.Now, stamp.offset)
	case stamp.Unread:
		notes |= events.NoteTimeUnread
	case stamp.Known && !sentAt.IsZero():
		t = shift(stamp.At, c.Now, sentAt)
	case stamp.Known:
		t = stamp.At
	}
	switch year := t.Year(); {
	case t.After(c.Now.Add(maxFuture)):
		return c.Now, notes | events.NoteTimeAhead
	case year < 0 || year > 9999:
		return time.Unix(0, 0).UTC(), notes | events.NoteTimeOutOfRange
	case year < firstYear:
		notes |= events.NoteTimeOld
	}
	return t, notes
}

// shift returns t + to - from. It uses no Duration, which would hold no more than 292 years.
func shift(t, to, from time.Time) time.Time {
	return time.Unix(t.Unix()+to.Unix()-from.Unix(), int64(t.Nanosecond()+to.Nanosecond()-from.Nanosecond())).UTC()
}

// before returns the time so many milliseconds before t. It uses no Duration, which would hold no more than 292 years.
func before(t time.Time, ms int64) time.Time {
	return time.Unix(t.Unix()-ms/1000, int64(t.Nanosecond())-ms%1000*int64(time.Millisecond)).UTC()
}
