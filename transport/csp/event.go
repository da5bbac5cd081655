package csp

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
)

// maxAge is how long ago a report may have been made, in milliseconds. The browser says how long it has held a report
// back; a larger age is taken for a mistake.
const maxAge = 7 * 24 * 60 * 60 * 1000

// member is a property of an event: a name that needs no escapes, and a JSON value.
type member struct {
	name  string
	value []byte
}

// fill makes the event of a report, or returns what is wrong with it. The event's memory counts against the lease.
func (r *report) fill(event *events.Event, from *sender, now time.Time, lease *memory.Lease) *events.Error {
	if event.Timestamp = r.time(now); !lease.Reserve(int64(len(time.RFC3339Nano) + 2)) {
		return memory.ErrSpent
	}
	event.UUID = posthog.NewUUID(event.Timestamp)
	event.Raw.Timestamp = event.Timestamp.AppendFormat([]byte{'"'}, time.RFC3339Nano)
	event.Raw.Timestamp = append(event.Raw.Timestamp, '"')
	event.Raw.DistinctID = from.distinctID
	posthog.Identify(event, from.distinctID)
	if r.kind == crash {
		event.Name = "$browser_crash_report"
	} else {
		event.Name = "$csp_violation"
	}
	var list []member
	var fault *events.Error
	switch {
	case r.kind == crash:
		list, fault = r.crash(from, lease)
	case r.body == nil:
		fault = errNoBody
	default:
		list, fault = r.violation(from, now, event, lease)
	}
	if fault != nil {
		event.Raw.Properties = []byte("{}")
		return fault
	}
	size := 2
	for _, m := range list {
		size += len(m.name) + len(m.value) + len(`"":,`)
	}
	if fault := lease.Take(int64(size)); fault != nil {
		return fault
	}
	properties := append(make([]byte, 0, size), '{')
	for i, m := range list {
		if i > 0 {
			properties = append(properties, ',')
		}
		properties = append(properties, '"')
		properties = append(properties, m.name...)
		properties = append(properties, '"', ':')
		properties = append(properties, m.value...)
	}
	properties = append(properties, '}')
	event.Raw.Properties = properties
	return nil
}

// time returns when the report was made.
func (r *report) time(now time.Time) time.Time {
	age, err := strconv.ParseFloat(jsonscan.Alias(r.age), 64)
	if err != nil || !(age >= 0 && age <= maxAge) {
		return now
	}
	return now.Add(-time.Duration(age * float64(time.Millisecond)))
}

var (
	null    = []byte("null")
	isFalse = []byte("false")
	isTrue  = []byte("true")
	empty   = []byte(`""`)
)

func orNull(value []byte) []byte {
	if value == nil {
		return null
	}
	return value
}

// details are the fields of a violation, as the Reporting API names them, each with its name in a report of report-uri
// and the property that it becomes.
var details = []struct{ name, legacy, property string }{
	{"documentURL", "document-uri", "$csp_document_url"},
	{"referrer", "referrer", "$csp_referrer"},
	{"", "violated-directive", "$csp_violated_directive"},
	{"effectiveDirective", "effective-directive", "$csp_effective_directive"},
	{"originalPolicy", "original-policy", "$csp_original_policy"},
	{"disposition", "disposition", "$csp_disposition"},
	{"blockedURL", "blocked-uri", "$csp_blocked_url"},
	{"lineNumber", "line-number", "$csp_line_number"},
	{"columnNumber", "column-number", "$csp_column_number"},
	{"sourceFile", "source-file", "$csp_source_file"},
	{"statusCode", "status-code", "$csp_status_code"},
	{"sample", "script-sample", "$csp_script_sample"},
}

// The places in details of the fields that need more than a new name.
const (
	documentURL        = 0
	violatedDirective  = 2
	effectiveDirective = 3
	blockedURL         = 6
	scriptSample       = 11
)

// violation returns the properties of the event for a violation of a policy. An event that the sender's sampling leaves
// out ends as dropped.
func (r *report) violation(
	from *sender, now time.Time, event *events.Event, lease *memory.Lease,
) ([]member, *events.Error) {
	var found, legacy [12][]byte // as many as details
	var userAgent []byte
	members := jsonscan.MembersOf(r.body)
	for members.Next() {
		if string(members.Value) == "null" {
			continue
		}
		if string(members.Key) == "user-agent" {
			userAgent = members.Value
		}
		for i := range details {
			if string(members.Key) == details[i].name {
				found[i] = members.Value
			}
			if string(members.Key) == details[i].legacy {
				legacy[i] = members.Value
			}
		}
	}
	reportType := []byte(`"csp-violation"`)
	if r.kind == legacyViolation {
		found = legacy
	} else {
		// Some browsers and polyfills write the body of the Reporting API with names of report-uri.
		found[documentURL] = or(found[documentURL], legacy[documentURL], r.url)
		found[violatedDirective] = or(found[effectiveDirective], legacy[violatedDirective])
		found[blockedURL] = or(found[blockedURL], legacy[blockedURL])
		userAgent = or(r.userAgent, userAgent)
	}
	sample, raw, err := r.escape(found[scriptSample], lease)
	if err != nil {
		return nil, err
	}
	found[scriptSample] = sample

	list := make([]member, 0, 24)
	list = append(list,
		member{"$session_id", from.sessionID}, member{"$csp_version", from.version},
		member{"$current_url", orNull(found[documentURL])}, member{"$process_person_profile", isFalse},
		member{"$raw_user_agent", from.userAgent}, member{"$csp_report_type", reportType})
	for i := range details {
		list = append(list, member{details[i].property, orNull(found[i])})
	}
	if r.kind == violation {
		list = append(list, member{"$csp_user_agent", orNull(userAgent)})
	}
	list = append(list, member{"$csp_raw_report", raw})
	if from.rate >= 1 {
		return list, nil
	}
	url := textOf(found[documentURL])
	key := samplingKey(url, now)
	if !isSampled(key, from.rate) {
		event.Drop(events.ReasonSampled)
	}
	if fault := lease.Take(escapedSize(len(key))); fault != nil {
		return nil, fault
	}
	return append(list, member{"$csp_csp_sampled", isTrue},
		member{"$csp_csp_sample_threshold", strconv.AppendFloat(nil, from.rate, 'g', -1, 64)},
		member{"$csp_csp_sampling_key", quote(key)}), nil
}

// markup escapes what HTML gives a meaning, in the spelling of PostHog's service.
var markup = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#x27;")

// escape returns a sample of a page's script with HTML's special characters escaped, and the report with the escaped
// sample in the place of its own: pages of PostHog have shown it, and anybody can send any sample.
func (r *report) escape(sample []byte, lease *memory.Lease) (escaped, raw []byte, fault *events.Error) {
	text := textOf(sample)
	switch {
	case sample == nil:
		return empty, r.raw, nil
	case sample[0] != '"':
		text = string(sample) // a number, or something that no browser writes
	}
	// Of all characters a quotation mark grows most: six bytes for one. The escaped text exists up to six times, in
	// buffers and in the two objects around it.
	if fault := lease.Take(6*escapedSize(len(text)) + 2*int64(len(r.raw))); fault != nil {
		return nil, nil, fault
	}
	escaped = quote(markup.Replace(text))
	if bytes.Equal(escaped, sample) {
		return escaped, r.raw, nil
	}
	outer, inner := "body", "sample"
	if r.kind == legacyViolation {
		outer, inner = "csp-report", "script-sample"
	}
	room := len(r.raw) + len(escaped) + len(outer) + len(inner) + 16
	body, err := jsonscan.AppendSet(make([]byte, 0, room), r.body, inner, escaped)
	if err == nil {
		raw, err = jsonscan.AppendSet(make([]byte, 0, room), r.raw, outer, body)
	}
	if err != nil {
		return nil, nil, events.Errorf(events.Internal, "write a report: %w", err)
	}
	return escaped, raw, nil
}

// crash returns the properties of the event for a tab that has crashed. The report's URL may hold a credential, such as
// a link for a new password. So the event has the URL without its query, and without those parts of its path that look
// like one.
func (r *report) crash(from *sender, lease *memory.Lease) ([]member, *events.Error) {
	var reason, id, topLevel, visibility []byte
	if r.body != nil {
		members := jsonscan.MembersOf(r.body)
		for members.Next() {
			value := members.Value
			switch string(members.Key) {
			case "reason":
				reason = value
			case "crashId":
				id = value
			case "is_top_level":
				topLevel = value
			case "visibility_state":
				visibility = value
			}
		}
	}
	if string(reason) == "null" {
		reason = nil
	}
	if reason = or(reason); reason == nil {
		reason = []byte(`"unknown"`)
	}
	if fault := lease.Take(6*escapedSize(len(r.url)) + int64(len(r.raw))); fault != nil {
		return nil, fault
	}
	url := null
	if text := textOf(r.url); text != "" {
		url = quote(withoutSecrets(text))
	}
	raw, err := jsonscan.AppendSet(make([]byte, 0, len(r.raw)+len(url)+len(`,"url":`)), r.raw, "url", url)
	if err != nil {
		return nil, events.Errorf(events.Internal, "write a report: %w", err)
	}
	userAgent := from.userAgent
	if said := or(r.userAgent); said != nil {
		userAgent = said
	}
	return []member{
		{"$session_id", from.sessionID}, {"$current_url", url}, {"$process_person_profile", isFalse},
		{"$raw_user_agent", userAgent},
		{"$browser_crash_reason", reason}, {"$browser_crash_id", orNull(id)},
		{"$browser_crash_is_top_level", orNull(topLevel)},
		{"$browser_crash_visibility_state", orNull(visibility)},
		{"$browser_crash_age_ms", orNull(r.age)}, {"$browser_crash_document_url", url},
		{"$browser_crash_user_agent", orNull(r.userAgent)}, {"$browser_crash_raw_report", raw},
	}, nil
}

// withoutSecrets returns a URL without query and fragment, and with <redacted> for each part of the path that looks
// like a token: sixteen or more letters, digits and ._~- with a digit among them.
func withoutSecrets(url string) string {
	if end := strings.IndexAny(url, "?#"); end >= 0 {
		url = url[:end]
	}
	start := 0
	if scheme := strings.Index(url, "://"); scheme >= 0 {
		start = scheme + len("://")
		if at := strings.LastIndexByte(url[:start+pathOf(url[start:])], '@'); at >= 0 {
			url = url[:start] + url[at+1:] // a user and a password
		}
		start += pathOf(url[start:])
	}
	parts := strings.Split(url[start:], "/")
	for i, part := range parts {
		if looksLikeToken(part) {
			parts[i] = "<redacted>"
		}
	}
	return url[:start] + strings.Join(parts, "/")
}

// pathOf returns where the path begins behind the name of a host.
func pathOf(rest string) int {
	if at := strings.IndexByte(rest, '/'); at >= 0 {
		return at
	}
	return len(rest)
}

func looksLikeToken(part string) bool {
	digits := 0
	for _, c := range []byte(part) {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == '_', c == '.', c == '~', c == '-':
		default:
			return false
		}
	}
	return len(part) >= 16 && digits > 0
}

// escapedSize is the most bytes that a text of n bytes takes as a JSON string.
func escapedSize(n int) int64 { return 6*int64(n) + 2 }

// quote writes a text as a JSON string.
func quote(text string) []byte {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // A string always becomes JSON.
	return []byte(strings.TrimSuffix(out.String(), "\n"))
}
