package posthog

import (
	"time"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
)

// The other protocols share these functions with v0.

// Token checks the shape of a project token and returns it without surrounding white space.
func Token(text string) (string, *events.Error) {
	token, fault := events.CheckToken(text)
	if fault != "" {
		return "", events.Errorf(events.Unauthorized, "API key is not valid: %s", fault)
	}
	return token, nil
}

// Identify gives the event the text of a distinct_id's JSON value, cut to 200 characters. It notes a cut in the event,
// and reports whether the text names anybody.
func Identify(event *events.Event, value []byte) bool {
	identify(event, value)
	return !isBlank(event.DistinctID)
}

// ParseUUID reads a UUID of any version in its usual forms.
func ParseUUID(text string) (uuid.UUID, bool) { return parseUUID(text) }

// NewUUID makes a UUIDv7 for an event that came without a UUID. Its time part is the event's own time.
func NewUUID(at time.Time) uuid.UUID { return newUUID(at) }
