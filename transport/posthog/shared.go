package posthog

import (
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/route"
)

// What the protocols beside v0 have in common with it.

// BearerToken returns the project token that the Authorization header carries, checked for its shape.
func BearerToken(request *route.Request) (string, *events.Error) {
	scheme, token, _ := strings.Cut(strings.TrimSpace(request.Get("Authorization")), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", errNoToken
	}
	return Token(token)
}

// Token checks the shape of a project token and returns it without surrounding white space.
func Token(text string) (string, *events.Error) {
	token, fault := checkToken(text)
	if fault != "" {
		return "", events.Errorf(events.Unauthorized, "API key is not valid: %s", fault)
	}
	return token, nil
}

// Identify gives the event the text that a distinct_id's JSON value says, cut to 200 characters, which it notes, and
// reports whether that names anybody.
func Identify(event *events.Event, value []byte) bool {
	identify(event, value)
	return !isBlank(event.DistinctID)
}

// ParseUUID reads a UUID of any version in its usual forms.
func ParseUUID(text string) (uuid.UUID, bool) { return parseUUID(text) }

// ParseTime reads a time in any of the forms that the protocol allows.
func ParseTime(text string) (time.Time, bool) { return parseTime(text) }

// EventTime computes when an event happened: stamp by the client's clock, sentAt what that clock said when it sent the
// event, and now what the service's says. A zero stamp or sentAt is one that is not known.
func EventTime(now, sentAt, stamp time.Time) time.Time {
	return Clock{Now: now, SentAt: sentAt}.eventTime(stamp, !stamp.IsZero(), 0, false, false)
}
