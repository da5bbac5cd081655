package restriction

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/modules/store"
)

// Kind is the kind of the records in store.Records. The name of a record is the rule's name: see CheckName.
const Kind = "rule"

// Action is what a rule does with an event.
type Action uint8

// The actions.
const (
	// Drop: the event is not kept, and the client is answered as if it were.
	Drop Action = iota
	// Overflow: the event goes to the overflow topic of its lane.
	Overflow
	// DLQ: the event is set aside in the dead-letter topic.
	DLQ
	// Topic: the event goes to the topic that the rule names.
	Topic
	// SkipPerson: the pipeline behind Kafka does not update a person from the event.
	SkipPerson
	actionCount
)

var actionNames = [actionCount]string{"drop", "overflow", "dlq", "topic", "skip_person"}

// ActionCount is the number of actions: an action is less than that.
const ActionCount = int(actionCount)

// Actions returns every action.
func Actions() []Action {
	actions := make([]Action, actionCount)
	for i := range actions {
		actions[i] = Action(i)
	}
	return actions
}

func (a Action) String() string {
	if a < actionCount {
		return actionNames[a]
	}
	return "unknown"
}

// ParseAction returns the action of a name.
func ParseAction(name string) (Action, error) {
	for a, known := range actionNames {
		if name == known {
			return Action(a), nil
		}
	}
	return 0, fmt.Errorf("must be one of %s, got %s", strings.Join(actionNames[:], ", "), shown(name))
}

// Rule is a rule as an operator has set it up. It concerns the events of a token that are in every list that has
// entries: an event is in a list if one of the entries is its own. A Rule never changes.
type Rule struct {
	// Token is the project's token.
	Token  string
	Action Action
	// Topic is where the events go if the action is Topic.
	Topic string

	DistinctIDs, Events, Sessions []string
	UUIDs                         []uuid.UUID

	// Expires is when the rule ends. The zero time: never.
	Expires time.Time
	// Comment tells people why there is the rule.
	Comment string
}

// Field describes a field of a record.
type Field struct{ Name, About string }

// The names of the fields.
const (
	fieldToken       = "token"
	fieldAction      = "action"
	fieldTopic       = "topic"
	fieldDistinctIDs = "distinct_ids"
	fieldEvents      = "events"
	fieldSessions    = "sessions"
	fieldUUIDs       = "uuids"
	fieldExpires     = "expires"
	fieldComment     = "comment"
)

// Reference describes every field, in the order in which people read them. docs/restrictions.md has the same sentences.
func Reference() []Field {
	return []Field{
		{fieldToken, "Token of the project whose events the rule concerns. It must be given."},
		{fieldAction, "What happens to the events: drop, overflow, dlq, topic or skip_person. It must be given."},
		{fieldTopic, "Where the events go, with the action topic: one of kafka.topics, such as of " +
			"kafka.topics.custom."},
		{fieldDistinctIDs, "Users whose events the rule concerns. Default: all."},
		{fieldEvents, "Names of the events that the rule concerns, such as $pageview. Default: all."},
		{fieldSessions, "Sessions whose events the rule concerns: those with the $session_id. Default: all."},
		{fieldUUIDs, "The uuids of the events that the rule concerns. Default: all."},
		{fieldExpires, "When the rule ends, such as 2026-12-31T18:00:00Z. Default: never."},
		{fieldComment, "Why there is the rule, for people."},
	}
}

var fieldNames = func() (names []string) {
	for _, field := range Reference() {
		names = append(names, field.Name)
	}
	return names
}()

const (
	// maxName is how many bytes the name of a rule has at most, maxEntry those of an entry of a list, maxComment those
	// of a comment.
	maxName, maxEntry, maxComment = 64, 1000, 1000
	// maxDistinctID is how many characters of a distinct_id the service keeps.
	maxDistinctID = 200
	// maxEntries is how many entries a list may have.
	maxEntries = 1000
)

// CheckName returns an error for what cannot be the name of a rule. Names are in log lines and headers of messages.
func CheckName(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	if name == "" || len(name) > maxName || strings.Trim(name, letters) != "" {
		return fmt.Errorf("the name of a rule must be 1 to %d letters, digits, dots, underscores or hyphens, got %s",
			maxName, shown(name))
	}
	return nil
}

// Parse reads a record. A field without a value counts as absent. The error is a *configs.FaultsError with every fault.
func Parse(fields store.Fields) (Rule, error) {
	p := parser{fields: fields}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if slices.Contains(fieldNames, name) {
			continue
		}
		if nearest := configs.Nearest(name, fieldNames); nearest != "" {
			p.faults.Addf(shown(name), "is no field of a rule: did you mean %s?", nearest)
		} else {
			p.faults.Addf(shown(name), "is no field of a rule: the fields are %s", strings.Join(fieldNames, ", "))
		}
	}
	r := Rule{
		Token: p.token(), Action: p.action(), Topic: p.get(fieldTopic),
		DistinctIDs: p.list(fieldDistinctIDs), Events: p.list(fieldEvents), Sessions: p.list(fieldSessions),
		UUIDs: p.uuids(), Expires: p.time(fieldExpires), Comment: p.comment(),
	}
	for i, id := range r.DistinctIDs {
		p.faults.Check(utf8.RuneCountInString(id) <= maxDistinctID, fieldDistinctIDs,
			"entry %d is longer than %d characters, to which distinct_ids are cut: no event has it", i+1, maxDistinctID)
	}
	switch {
	case r.Action == Topic && p.has(fieldAction):
		p.faults.Check(produce.IsTopicName(r.Topic), fieldTopic, "must be %s, got %s", produce.TopicNameRule,
			shown(r.Topic))
	case p.has(fieldTopic):
		p.faults.Addf(fieldTopic, "needs the action topic")
	}
	if err := p.faults.Err(); err != nil {
		return Rule{}, err
	}
	return r, nil
}

// CheckTopic returns an error unless the rule sends events to one of the topics, or to none of its own.
func (r *Rule) CheckTopic(topics []string) error {
	var faults configs.Faults
	faults.Check(r.Action != Topic || slices.Contains(topics, r.Topic), fieldTopic,
		"%s is none of kafka.topics: add it to kafka.topics.custom", shown(r.Topic))
	return faults.Err()
}

// parser reads the fields of a record and collects the faults.
type parser struct {
	fields store.Fields
	faults configs.Faults
}

func (p *parser) get(name string) string { return strings.TrimSpace(p.fields[name]) }

func (p *parser) has(name string) bool { return p.get(name) != "" }

func (p *parser) token() string {
	token, fault := events.CheckToken(p.get(fieldToken))
	switch fault {
	case "":
	case "empty":
		p.faults.Addf(fieldToken, "must be given: the token of the project whose events the rule concerns")
	default:
		p.faults.Addf(fieldToken, "cannot be the token of a project (%s): no event has it", fault)
	}
	return token
}

func (p *parser) action() Action {
	if !p.has(fieldAction) {
		p.faults.Addf(fieldAction, "must be given: one of %s", strings.Join(actionNames[:], ", "))
		return Drop
	}
	action, err := ParseAction(p.get(fieldAction))
	if err != nil {
		p.faults.Addf(fieldAction, "%s", err)
	}
	return action
}

func (p *parser) comment() string {
	text := p.get(fieldComment)
	p.faults.Check(len(text) <= maxComment, fieldComment, "must have at most %d bytes, got %d", maxComment, len(text))
	sound := utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
	p.faults.Check(sound, fieldComment, "must be text without control characters, got %s", shown(text))
	return text
}

func (p *parser) time(name string) time.Time {
	text := p.get(name)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.IsZero() {
		p.faults.Addf(name, "must be a time as of RFC 3339, such as 2026-12-31T18:00:00Z, got %s", shown(text))
	}
	return t
}

func (p *parser) uuids() (all []uuid.UUID) {
	for i, text := range p.list(fieldUUIDs) {
		id, err := uuid.Parse(text)
		p.faults.Check(err == nil, fieldUUIDs, "entry %d must be a uuid, got %s", i+1, shown(text))
		all = append(all, id)
	}
	return all
}

// list returns the entries of a list.
func (p *parser) list(name string) []string {
	all, err := parseList(p.get(name))
	switch {
	case err != nil:
		p.faults.Addf(name, "%s", err)
	case len(all) > maxEntries:
		p.faults.Addf(name, "must have at most %d entries, got %d: make several rules of it", maxEntries, len(all))
	}
	for i, entry := range all {
		p.faults.Check(utf8.ValidString(entry), name, "entry %d is not UTF-8", i+1)
		p.faults.Check(len(entry) <= maxEntry, name, "entry %d must have at most %d bytes, got %d", i+1, maxEntry,
			len(entry))
	}
	return all
}

// parseList reads entries that are separated by commas, without the white space around them. An entry in double quotes
// may hold anything; in it, \" stands for a quote and \\ for a backslash.
func parseList(text string) (all []string, err error) {
	for rest := strings.TrimSpace(text); rest != ""; {
		number := len(all) + 1
		var entry string
		if rest[0] == '"' {
			var closed bool
			if entry, rest, closed = unquote(rest[1:]); !closed {
				return all, fmt.Errorf(`entry %d has no closing quote: in quotes, write \" for a quote and \\ for a `+
					`backslash`, number)
			}
			rest = strings.TrimSpace(rest)
			if rest != "" && rest[0] != ',' {
				return all, fmt.Errorf("entry %d goes on behind its quotes: separate the entries by one comma", number)
			}
		} else {
			end := strings.IndexByte(rest, ',')
			if end < 0 {
				end = len(rest)
			}
			entry, rest = strings.TrimSpace(rest[:end]), rest[end:]
		}
		if entry == "" {
			return all, fmt.Errorf("entry %d is empty: separate the entries by one comma", number)
		}
		all = append(all, entry)
		if rest == "" {
			break
		}
		if rest = strings.TrimSpace(rest[1:]); rest == "" {
			return all, fmt.Errorf("entry %d is empty: leave out the last comma", number+1)
		}
	}
	return all, nil
}

// unquote reads up to the closing quote.
func unquote(text string) (entry, rest string, closed bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return b.String(), text[i+1:], true
		case c == '\\' && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\\'):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

var quoter = strings.NewReplacer(`"`, `\"`, `\`, `\\`)

// formatList writes entries as parseList reads them.
func formatList(all []string) string {
	var b strings.Builder
	for i, entry := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		if strings.ContainsRune(entry, ',') || entry[0] == '"' || strings.TrimSpace(entry) != entry {
			b.WriteString(`"` + quoter.Replace(entry) + `"`)
		} else {
			b.WriteString(entry)
		}
	}
	return b.String()
}

// shown quotes a text for a person, and cuts a long one.
func shown(text string) string {
	const most = 100
	if len(text) > most {
		return strconv.Quote(text[:most]) + "..."
	}
	return strconv.Quote(text)
}

// Fields writes the rule as Parse reads it. It leaves out what is the default.
func (r *Rule) Fields() store.Fields {
	fields := store.Fields{fieldToken: r.Token, fieldAction: r.Action.String()}
	ids := make([]string, len(r.UUIDs))
	for i, id := range r.UUIDs {
		ids[i] = id.String()
	}
	expires := ""
	if !r.Expires.IsZero() {
		expires = r.Expires.Format(time.RFC3339Nano)
	}
	for name, value := range map[string]string{
		fieldTopic: r.Topic, fieldDistinctIDs: formatList(r.DistinctIDs), fieldEvents: formatList(r.Events),
		fieldSessions: formatList(r.Sessions), fieldUUIDs: formatList(ids), fieldExpires: expires,
		fieldComment: r.Comment,
	} {
		if value != "" {
			fields[name] = value
		}
	}
	return fields
}
