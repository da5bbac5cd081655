package kafka

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/IBM/sarama"

	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/modules/terminal"
)

// Line is one event as JSON shows it.
type Line struct {
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Key       *string           `json:"key"`
	Timestamp time.Time         `json:"timestamp"`
	Headers   map[string]string `json:"headers"`
	// Value is the message's JSON, in which the JSON text of the field data is replaced by the JSON itself. It is a
	// string if the message is other text. A message that is no text is in ValueBase64 instead.
	Value       json.RawMessage `json:"value,omitempty"`
	ValueBase64 []byte          `json:"value_base64,omitempty"`
}

func newLine(message *sarama.ConsumerMessage) Line {
	line := Line{
		Topic: message.Topic, Partition: message.Partition, Offset: message.Offset,
		Timestamp: message.Timestamp.UTC(), Headers: make(map[string]string, len(message.Headers)),
	}
	if message.Key != nil {
		key := string(message.Key)
		line.Key = &key
	}
	for _, header := range message.Headers {
		line.Headers[string(header.Key)] = string(header.Value)
	}
	if line.Value = opened(message.Value); line.Value == nil {
		line.ValueBase64 = message.Value
	}
	return line
}

// opened returns a message's JSON, in which the string in the field data is replaced by the JSON that it holds. The
// order of the fields is kept. It returns what produce.JSONOf returns for a value without such a field.
func opened(value []byte) json.RawMessage {
	shown := produce.JSONOf(value)
	decoder := json.NewDecoder(bytes.NewReader(shown))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return shown
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return shown
		}
		var field json.RawMessage
		if err := decoder.Decode(&field); err != nil {
			return shown
		}
		if name != "data" {
			continue
		}
		var data string
		if err := json.Unmarshal(field, &data); err != nil || !json.Valid([]byte(data)) {
			return shown
		}
		end := int(decoder.InputOffset())
		return slices.Concat(shown[:end-len(field)], []byte(data), shown[end:])
	}
	return shown
}

const (
	// nameWidth is how wide the columns of names are at least.
	nameWidth = 18
	// shownProperties is how many properties of an event are shown, and shownValue how many characters of each.
	shownProperties = 4
	shownValue      = 40
)

// pretty writes the line for people: when the event arrived, its name, whose it is, its uuid, some of its properties,
// and where it lies.
func (l *Line) pretty(color bool) string {
	paint := func(style terminal.Style, text string) string {
		if !color {
			style = terminal.Plain
		}
		return style.Paint(text)
	}
	name := func(style terminal.Style, text string) string {
		text = terminal.Escape(text)
		if text == "" {
			text = "-"
		}
		return paint(style, text) + strings.Repeat(" ", max(0, nameWidth-utf8.RuneCountInString(text)))
	}
	event := newShownEvent(l.Value)
	columns := []string{
		paint(terminal.Dim, l.Timestamp.Local().Format("2006-01-02 15:04:05.000")),
		name(terminal.Bold, l.Headers["event"]),
		name(terminal.Cyan, l.Headers["distinct_id"]),
		paint(terminal.Plain, event.UUID),
	}
	for _, property := range event.properties() {
		columns = append(columns, paint(terminal.Dim, property.name+"=")+paint(terminal.Plain, property.value))
	}
	columns = append(columns, paint(terminal.Dim, fmt.Sprintf("(%s/%d/%d)", l.Topic, l.Partition, l.Offset)))
	return strings.Join(columns, "  ") + "\n"
}

// shownEvent is what people see of the value of a message.
type shownEvent struct {
	UUID string `json:"uuid"`
	Data struct {
		Properties json.RawMessage `json:"properties"`
	} `json:"data"`
}

func newShownEvent(value json.RawMessage) (event shownEvent) {
	_ = json.Unmarshal(value, &event) // of a value of another form, what can be read is shown
	return event
}

type property struct{ name, value string }

// properties returns a few properties of the event: those that the sender has thought of, in their order, then the page
// or screen.
func (e *shownEvent) properties() []property {
	decoder := json.NewDecoder(bytes.NewReader(e.Data.Properties))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil
	}
	var own, place []property
	for decoder.More() && len(own) < shownProperties {
		name, err := decoder.Token()
		var value json.RawMessage
		if err != nil || decoder.Decode(&value) != nil {
			break
		}
		switch name := name.(string); {
		case name == "$current_url" || name == "$screen_name":
			place = append(place, property{name, shorten(value)})
		case !strings.HasPrefix(name, "$"):
			own = append(own, property{name, shorten(value)})
		}
	}
	return append(own, place...)[:min(shownProperties, len(own)+len(place))]
}

// shorten writes a value of JSON in a few characters.
func shorten(value json.RawMessage) string {
	text := string(value)
	switch value[0] {
	case '{':
		return "{…}"
	case '[':
		return "[…]"
	case '"':
		if json.Unmarshal(value, &text) != nil {
			return "…"
		}
	}
	if runes := []rune(text); len(runes) > shownValue {
		text = string(runes[:shownValue-1]) + "…"
	}
	if text == "" || strings.ContainsRune(text, ' ') {
		text = `"` + text + `"`
	}
	return text
}
