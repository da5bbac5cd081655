package transport

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/module"
)

func sendCommand() module.Command {
	var p peer
	var event sentEvent
	var properties []string
	return module.Command{
		Use: "send", Short: "Send one event to the service, to see it arrive",
		Long: `Sends one event to the service as an SDK does, once, and prints the status of the answer, what made the
event safe (X-Capture-Ack), and the event's uuid. A value of --property that is JSON is sent as it is, so that seats=3
is a number; any other value is a string. The exit code is 0 if the answer is 200, and 1 if it is another or none. After
an answer that did not come in time the event may have arrived.`,
		Example: `  capture send --token phc_mine --event signed_up --distinct-id user-1 --property seats=3
  capture send --token phc_mine --event moved --distinct-id me --host https://events.example.com --output json`,
		Output: module.Table,
		Flags: func(flags *module.Flags) {
			p.flags(flags, 30*time.Second)
			flags.StringVar(&event.Token, "token", "", "`TOKEN` of the project")
			flags.StringVar(&event.Event, "event", "", "`NAME` of the event")
			flags.StringVar(&event.DistinctID, "distinct-id", "", "`ID` of the user")
			flags.StringArrayVar(&properties, "property", nil, "`NAME=VALUE` of the event; may be repeated")
		},
		Run: func(use module.Invocation, cfg Config) (err error) {
			for _, required := range []struct{ flag, value string }{
				{"token", event.Token}, {"event", event.Event}, {"distinct-id", event.DistinctID},
			} {
				if required.value == "" {
					return module.Misusef("--%s is missing", required.flag)
				}
			}
			if event.Properties, err = parseProperties(properties); err != nil {
				return err
			}
			return event.send(use, &p, cfg)
		},
	}
}

// sentEvent is an event as PostHog's SDKs write it.
type sentEvent struct {
	Token      string                     `json:"api_key"`
	UUID       string                     `json:"uuid"`
	Event      string                     `json:"event"`
	DistinctID string                     `json:"distinct_id"`
	Properties map[string]json.RawMessage `json:"properties"`
}

// sent is what is printed of an event that was sent.
type sent struct {
	Status int    `json:"status"`
	Ack    string `json:"ack,omitempty"`
	UUID   string `json:"uuid"`
}

func (e *sentEvent) send(use module.Invocation, p *peer, cfg Config) error {
	url, err := p.url(cfg)
	if err != nil {
		return err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	e.UUID = id.String()
	body, err := json.Marshal(e) //nolint:gosec // the token of a project is public
	if err != nil {
		return err
	}
	answer, err := p.ask(use.Context, http.MethodPost, url+"/i/v0/e/", string(body))
	if err != nil {
		return err
	}
	list := use.List("status", "ack", "uuid")
	row := sent{answer.status, answer.header.Get(headerAck), e.UUID}
	if err := list.Add(row, row.Status, row.Ack, row.UUID); err != nil {
		return err
	}
	if err := list.Flush(); err != nil {
		return err
	}
	switch {
	case answer.status != http.StatusOK:
		return answer.refusal()
	case row.Ack == "":
		use.Hint("nothing says that the event is kept: a rule of the service may have dropped it. " +
			"See capture_events_dropped_total in its /metrics")
	}
	return nil
}

func parseProperties(texts []string) (map[string]json.RawMessage, error) {
	properties := map[string]json.RawMessage{}
	for _, text := range texts {
		name, value, found := strings.Cut(text, "=")
		if !found || name == "" {
			return nil, module.Misusef("--property wants NAME=VALUE, got %q", text)
		}
		properties[name] = json.RawMessage(value)
		if !json.Valid([]byte(value)) {
			properties[name], _ = json.Marshal(value) // a string can always be marshalled
		}
	}
	return properties, nil
}
