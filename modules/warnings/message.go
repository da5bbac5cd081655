package warnings

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
)

const (
	// eventName is the event that a warning is.
	eventName = "$$client_ingestion_warning"
	// nobody is the distinct_id of a warning about an event without a distinct_id.
	nobody = "unknown"

	// maxText is the largest number of bytes of a text that a warning quotes. PostHog's pipeline takes no longer text.
	maxText = 200
	// maxDistinctID is the largest size of a distinct_id, in bytes: 200 characters.
	maxDistinctID = 200 * utf8.UTFMax
)

// message is a warning that waits to be written. It shares no memory with the request that it is about.
type message struct {
	kind      kind
	token     string
	requestID string
	event     events.Event
}

// properties are the properties of a warning that a PostHog pipeline reads.
type properties struct {
	Message string  `json:"$$client_ingestion_warning_message"`
	Type    string  `json:"$$client_ingestion_warning_type"`
	Source  string  `json:"$$client_ingestion_warning_source"`
	Details details `json:"$$client_ingestion_warning_details"`
}

// details help a person to find the cause. Older pipelines know a recording that is too large only by replayRecord and
// timestamp, and an invalid recording by reason and sessionId. A warning about a time has the field that holds it, and
// where it is known the value, as JSON.
type details struct {
	EventUUID    string        `json:"eventUuid,omitempty"`
	Event        string        `json:"event,omitempty"`
	DistinctID   string        `json:"distinctId,omitempty"`
	Timestamp    string        `json:"timestamp,omitempty"`
	SessionID    string        `json:"sessionId,omitempty"`
	ReplayRecord *replayRecord `json:"replayRecord,omitempty"`
	Reason       string        `json:"reason,omitempty"`
	Rule         string        `json:"rule,omitempty"`
	Error        string        `json:"error,omitempty"`
	Field        string        `json:"field,omitempty"`
	Value        string        `json:"value,omitempty"`
	Events       int           `json:"events"`
	Suppressed   int           `json:"suppressed"`
	PipelineStep string        `json:"pipelineStep"`
}

type replayRecord struct {
	SessionID string `json:"session_id"`
}

// newMessage makes the warning of a kind about a batch. held is the number of warnings that were held back before it.
func newMessage(batch *events.Batch, kind kind, found finding, held int) message {
	about := &batch.Events[found.first]
	properties := properties{
		Message: kinds[kind].sentence,
		Type:    kinds[kind].name,
		Source:  "capture",
		Details: details{
			Event:        cut(about.Name, maxText),
			DistinctID:   cut(about.DistinctID, maxText),
			SessionID:    cut(about.SessionID, maxText),
			Reason:       string(about.Outcome.Reason),
			Rule:         about.Outcome.Rule,
			Events:       found.events,
			Suppressed:   held,
			PipelineStep: "capture",
		},
	}
	if about.UUID != uuid.Nil {
		properties.Details.EventUUID = about.UUID.String()
	}
	if !about.Timestamp.IsZero() {
		properties.Details.Timestamp = about.Timestamp.UTC().Format(time.RFC3339Nano)
	}
	if about.Lane == events.LaneRecordings && about.SessionID != "" {
		properties.Details.ReplayRecord = &replayRecord{SessionID: properties.Details.SessionID}
	}
	if about.Outcome.Err != nil {
		properties.Details.Error = cut(about.Outcome.Err.Error(), maxText)
		properties.Message += ": " + properties.Details.Error
	}
	switch kind {
	case timeUnread, timeAhead, timeOutOfRange, timeOld:
		// Value is JSON, as the client sent it. The timestamp of a recording is not kept so long.
		sent := about.Raw.Timestamp
		properties.Details.Field = "timestamp"
		properties.Details.Value = cut(string(sent[:min(len(sent), maxText+1)]), maxText)
	case sentAtUnread:
		properties.Details.Field = "sent_at"
	}
	token, distinctID := strings.Clone(batch.Token), nobody
	if about.DistinctID != "" {
		distinctID = strings.Clone(cut(about.DistinctID, maxDistinctID))
	}
	return message{
		kind:      kind,
		token:     token,
		requestID: strings.Clone(batch.RequestID),
		event: events.Event{
			UUID:       uuid.Must(uuid.NewV7()),
			Name:       eventName,
			DistinctID: distinctID,
			Timestamp:  batch.Received,
			Lane:       events.LaneClientWarnings,
			Raw:        events.Raw{Token: text(token), DistinctID: text(distinctID), Properties: text(properties)},
		},
	}
}

// text returns a value as JSON. There is no error, because the value is a text or a struct of texts and numbers. Bytes
// that are not UTF-8 are replaced.
func text(value any) []byte {
	raw, _ := json.Marshal(value)
	return raw
}

// cut returns at most so many bytes of a text. It cuts between two characters.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
