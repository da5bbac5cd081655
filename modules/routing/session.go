package routing

import (
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
)

// session is the session of an event, which is looked up at most once.
type session struct {
	id     string
	looked bool
}

// propertySession is the property that has the session of an event, where the protocol does not give it apart.
const propertySession = "$session_id"

// of returns the session of the event, or "".
func (s *session) of(event *events.Event) string {
	if s.looked {
		return s.id
	}
	s.looked = true
	if s.id = event.SessionID; s.id == "" {
		if raw := jsonscan.Get(event.Raw.Properties, propertySession); len(raw) > 1 && raw[0] == '"' {
			s.id = jsonscan.Text(raw)
		}
	}
	return s.id
}
