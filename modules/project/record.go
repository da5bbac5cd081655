package project

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the zones of projects, also in an image that has no files of zones
	"unicode"
	"unicode/utf8"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/transport/route"
)

// Kind is the kind of the records in store.Records. The name of a record is the project's token.
const Kind = "project"

// Record is a project as an operator has set it up. The zero value may send everything. A Record never changes.
type Record struct {
	// ID is the project's id where it was set up, Name what people call it.
	ID, Name string
	// Disabled projects send nothing.
	Disabled bool
	// Scopes are the kinds of events that the project may send.
	Scopes events.Scopes
	// Endpoints are the groups of routes that the project may use. None stands for all.
	Endpoints []route.Group
	// Origins are the sites whose pages may send. None stands for all. RequireOrigin refuses requests that name no site
	// as well, as those of servers and of apps on phones.
	Origins       []Origin
	RequireOrigin bool
	// Networks are those that clients may send from. None stands for all.
	Networks []netip.Prefix
	// Limits is nil for a project that has no limits of its own.
	Limits *events.Limits
}

// Field describes a field of a record.
type Field struct{ Name, About string }

// The names of the fields.
const (
	fieldID            = "id"
	fieldName          = "name"
	fieldEnabled       = "enabled"
	fieldScopes        = "scopes"
	fieldEndpoints     = "endpoints"
	fieldOrigins       = "origins"
	fieldRequireOrigin = "require_origin"
	fieldNetworks      = "networks"
	fieldZone          = "zone"
	fieldQuotas        = "quotas"
	fieldRates         = "rates"
	fieldUserRates     = "user_rates"
	fieldOver          = "over"
	fieldWhole         = "whole"
)

// Reference describes every field, in the order in which people read them. docs/projects.md has the same sentences.
func Reference() []Field {
	return []Field{
		{fieldID, "The project's id in the system where it was set up. It is for people and other systems."},
		{fieldName, "What people call the project."},
		{fieldEnabled, "false refuses every request of the project. Default: true."},
		{fieldScopes, "Kinds of events that the project may send: events, recordings, exceptions, ai, logs, surveys; " +
			"and historical, for migrations of old events of these kinds. Default: all."},
		{fieldEndpoints, "Groups of routes that the project may use, as in transport.serve. Default: all."},
		{fieldOrigins, "Sites whose pages may send, each as https://example.com, or https://*.example.com for " +
			"everything below it. Requests that name no site pass. Default: all."},
		{fieldRequireOrigin, "true refuses requests that name no site, as those of servers and phones. It needs " +
			"origins. Default: false."},
		{fieldNetworks, "Networks and addresses that clients may send from, such as 203.0.113.0/24. Default: all."},
		{fieldZone, "Time zone whose calendar the quotas follow, such as Europe/Berlin. Default: UTC."},
		{fieldQuotas, "How much the project may send, each as events=1000000/month; the period is minute, hour, day " +
			"or month. none stands for no quota."},
		{fieldRates, "How fast the project may send, each as events=100/s or events=100/s burst=5000; the unit is s, " +
			"m or h. none stands for no rate."},
		{fieldUserRates, "The same for each distinct_id of the project."},
		{fieldOver, "What becomes of events over a rate: overflow, drop or reject. Default: overflow."},
		{fieldWhole, "true lets the events of a request pass a quota or rate only together. Default: false."},
	}
}

var fieldNames = func() (names []string) {
	for _, field := range Reference() {
		names = append(names, field.Name)
	}
	return names
}()

const (
	// maxID and maxName are in bytes.
	maxID   = 64
	maxName = 200
	// maxEntries is how many entries a list may have.
	maxEntries = 100
	// maxZone is longer than the name of any zone.
	maxZone = 64
	// none is a list that has no entry on purpose.
	none = "none"
)

// Parse reads a record. A field without a value counts as absent. The error is a *configs.FaultsError with every fault.
func Parse(fields store.Fields) (Record, error) {
	p := parser{fields: fields}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if slices.Contains(fieldNames, name) {
			continue
		}
		if nearest := configs.Nearest(name, fieldNames); nearest != "" {
			p.faults.Addf(keyOf(name), "is no field of a project: did you mean %s?", nearest)
		} else {
			p.faults.Addf(keyOf(name), "is no field of a project: the fields are %s", strings.Join(fieldNames, ", "))
		}
	}
	r := Record{
		ID: p.text(fieldID, maxID), Name: p.text(fieldName, maxName), Disabled: !p.truth(fieldEnabled, true),
		Scopes: p.scopes(), Endpoints: list(&p, fieldEndpoints, parseGroup),
		Origins: list(&p, fieldOrigins, ParseOrigin), RequireOrigin: p.truth(fieldRequireOrigin, false),
		Networks: list(&p, fieldNetworks, parseNetwork),
		Limits:   p.limits(),
	}
	p.faults.Check(!r.RequireOrigin || p.has(fieldOrigins), fieldRequireOrigin,
		"needs origins: name the sites whose pages may send")
	if err := p.faults.Err(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// keyOf returns the name of an unknown field as a fault calls it: quoted, unless it could be the name of a field.
func keyOf(name string) string {
	odd := func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' }
	if name == "" || len(name) > maxZone || strings.ContainsFunc(name, odd) {
		return shown(name)
	}
	return name
}

// parser reads the fields of a record and collects the faults.
type parser struct {
	fields store.Fields
	faults configs.Faults
}

func (p *parser) get(name string) string { return strings.TrimSpace(p.fields[name]) }

func (p *parser) has(name string) bool { return p.get(name) != "" }

// text returns a text for people.
func (p *parser) text(name string, most int) string {
	text := p.get(name)
	p.faults.Check(len(text) <= most, name, "must have at most %d bytes, got %d", most, len(text))
	sound := utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
	p.faults.Check(sound, name, "must be text without control characters, got %s", shown(text))
	return text
}

func (p *parser) truth(name string, without bool) bool {
	switch text := p.get(name); text {
	case "":
		return without
	case "true", "false":
		return text == "true"
	default:
		p.faults.Addf(name, "must be true or false, got %s", shown(text))
		return without
	}
}

// list returns the entries of a list, which are separated by commas. It is nil if the field has no value, and empty for
// the one word none.
func list[T any](p *parser, name string, parse func(string) (T, error)) []T {
	text := p.get(name)
	switch text {
	case "":
		return nil
	case none:
		p.faults.Check(slices.Contains([]string{fieldQuotas, fieldRates, fieldUserRates}, name), name,
			"cannot be none: leave the field out for all, or set enabled to false to refuse the project")
		return []T{}
	}
	if n := 1 + strings.Count(text, ","); n > maxEntries {
		p.faults.Addf(name, "must have at most %d entries, got %d", maxEntries, n)
		return nil
	}
	var all []T
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			p.faults.Addf(name, "entry %d is empty: separate the entries by one comma", len(all)+1)
			return nil
		}
		value, err := parse(entry)
		if err != nil {
			p.faults.Addf(name, "entry %d: %s", len(all)+1, err)
		}
		all = append(all, value)
	}
	return all
}

func (p *parser) scopes() events.Scopes {
	var all events.Scopes
	for _, scope := range list(p, fieldScopes, events.ParseScope) {
		all |= scope
	}
	p.faults.Check(all != events.ScopeHistorical, fieldScopes,
		"must name the kinds of events of migrations as well, such as events, historical")
	return all
}

func (p *parser) limits() *events.Limits {
	own := p.has(fieldQuotas) || p.has(fieldRates) || p.has(fieldUserRates)
	for _, name := range []string{fieldZone, fieldOver, fieldWhole} {
		p.faults.Check(own || !p.has(name), name, "needs quotas, rates or user_rates of the project's own")
	}
	limits := &events.Limits{
		Quotas: list(p, fieldQuotas, events.ParseQuota), Rates: list(p, fieldRates, events.ParseRate),
		UserRates: list(p, fieldUserRates, events.ParseRate), Whole: p.truth(fieldWhole, false),
	}
	once(p, fieldQuotas, limits.Quotas, func(q events.Quota) string {
		return q.Resource.String() + " a " + q.Period.String()
	})
	ofRate := func(r events.Rate) string { return r.Resource.String() }
	once(p, fieldRates, limits.Rates, ofRate)
	once(p, fieldUserRates, limits.UserRates, ofRate)
	if text := p.get(fieldOver); text != "" {
		over, err := events.ParseOver(text)
		if err != nil {
			p.faults.Addf(fieldOver, "%s", err)
		}
		limits.Over = over
	}
	if text := p.get(fieldZone); text != "" {
		zone, err := loadZone(text)
		if err != nil {
			p.faults.Addf(fieldZone, "%s", err)
		}
		limits.Zone = zone
	}
	if !own {
		return nil
	}
	return limits
}

// once records a fault for a second entry about the same thing.
func once[T any](p *parser, name string, all []T, of func(T) string) {
	seen := map[string]bool{}
	for i, one := range all {
		about := of(one)
		p.faults.Check(!seen[about], name, "entry %d is a second one for %s: keep one of them", i+1, about)
		seen[about] = true
	}
}

// loadZone returns a zone by its name. Local is refused, because it differs from node to node.
func loadZone(name string) (*time.Location, error) {
	if len(name) <= maxZone && name != "Local" {
		if zone, err := time.LoadLocation(name); err == nil {
			return zone, nil
		}
	}
	return nil, fmt.Errorf("must be the name of a time zone, such as UTC or Europe/Berlin, got %s", shown(name))
}

// shown quotes a text for a person, and cuts a long one.
func shown(text string) string {
	const most = 100
	if len(text) > most {
		return strconv.Quote(text[:most]) + "..."
	}
	return strconv.Quote(text)
}

// Fields writes the record as Parse reads it. It leaves out what is the default.
func (r Record) Fields() store.Fields {
	fields := store.Fields{}
	set := func(name, value string) {
		if value != "" {
			fields[name] = value
		}
	}
	set(fieldID, r.ID)
	set(fieldName, r.Name)
	if r.Disabled {
		set(fieldEnabled, "false")
	}
	set(fieldScopes, r.Scopes.String())
	set(fieldEndpoints, join(r.Endpoints, func(g route.Group) string { return string(g) }))
	set(fieldOrigins, join(r.Origins, Origin.String))
	if r.RequireOrigin {
		set(fieldRequireOrigin, "true")
	}
	set(fieldNetworks, join(r.Networks, netip.Prefix.String))
	if r.Limits == nil {
		return fields
	}
	if r.Limits.Zone != nil {
		set(fieldZone, r.Limits.Zone.String())
	}
	set(fieldQuotas, joinLimits(r.Limits.Quotas, events.Quota.String))
	set(fieldRates, joinLimits(r.Limits.Rates, events.Rate.String))
	set(fieldUserRates, joinLimits(r.Limits.UserRates, events.Rate.String))
	if r.Limits.Over != events.OverOverflow {
		set(fieldOver, r.Limits.Over.String())
	}
	if r.Limits.Whole {
		set(fieldWhole, "true")
	}
	return fields
}

func join[T any](all []T, write func(T) string) string {
	texts := make([]string, len(all))
	for i, one := range all {
		texts[i] = write(one)
	}
	return strings.Join(texts, ", ")
}

// joinLimits is join for a list that may have no entry on purpose.
func joinLimits[T any](all []T, write func(T) string) string {
	if all != nil && len(all) == 0 {
		return none
	}
	return join(all, write)
}
