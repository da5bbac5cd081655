package csp

import (
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
)

const (
	// maxBody is the largest body on the wire, in bytes. A report has one or two kilobytes, most of it the policy.
	maxBody = 1 << 20
	// maxReports is how many reports a request may hold that become events.
	maxReports = 1000
)

var (
	errNoReport = events.Errorf(events.Invalid, "failed to parse request: the body is no report: send "+
		`{"csp-report": {...}}, or reports of the Reporting API`)
	errManyReports = events.Errorf(events.TooLarge,
		"maximum event size exceeded: request holds more than %d reports", maxReports)
	errNoBody = events.Errorf(events.Invalid, "the report's csp-report or body must be an object")
)

// kind is what a report is about.
type kind uint8

const (
	other kind = iota // a report of the Reporting API that becomes no event
	violation
	legacyViolation // in the form of report-uri
	crash
)

// report is one report. Its values are JSON as it was sent; an absent one, and null, is nil.
type report struct {
	kind kind
	// raw is the whole report, and body the object that describes what happened; nil: it is none.
	raw, body []byte
	// reportType, url, age and userAgent stand beside the body in the Reporting API.
	reportType, url, age, userAgent []byte
}

// readReports finds the reports in a text that become events. A fault of a single report is not looked at yet.
func readReports(text []byte) ([]report, *events.Error) {
	scan := jsonscan.Scanner{Data: text}
	at := scan.Space(0)
	if fault := scan.End(scan.Value(at, 0)); fault != nil {
		return nil, events.Errorf(events.Invalid, "failed to parse request: %w", fault)
	}
	if text[at] == '{' {
		found, is := readReport(text[at:scan.Value(at, 0)])
		if !is || found.kind == other {
			return nil, errNoReport
		}
		return []report{found}, nil
	}
	if text[at] != '[' {
		return nil, errNoReport
	}
	var reports []report
	if at = scan.Space(at + 1); text[at] == ']' {
		return nil, nil
	}
	known := false
	for more := true; more; {
		end := scan.Value(at, 1)
		found, is := readReport(text[at:end:end])
		known = known || is
		if is && found.kind != other {
			if len(reports) == maxReports {
				return nil, errManyReports
			}
			reports = append(reports, found)
		}
		at, more = scan.NextElement(end)
	}
	if !known {
		return nil, errNoReport
	}
	return reports, nil
}

// readReport reads one report. It reports false for a value that is no report of any kind.
func readReport(raw []byte) (report, bool) {
	r := report{raw: raw}
	if raw[0] != '{' {
		return r, false
	}
	var legacy, body []byte
	isLegacy := false
	members := jsonscan.MembersOf(raw)
	for members.Next() {
		value := members.Value
		if string(value) == "null" {
			value = nil
		}
		switch string(members.Key) {
		case "csp-report":
			legacy, isLegacy = value, true
		case "body":
			body = value
		case "type":
			r.reportType = value
		case "url":
			r.url = value
		case "age":
			r.age = value
		case "user_agent":
			r.userAgent = value
		}
	}
	switch {
	case isLegacy:
		r.kind, body = legacyViolation, legacy
	case textOf(r.reportType) == "csp-violation":
		r.kind = violation
	case textOf(r.reportType) == "crash":
		r.kind = crash
	default:
		return r, textOf(r.reportType) != ""
	}
	if body != nil && body[0] == '{' {
		r.body = body
	}
	return r, true
}

// textOf returns the text of a value that is a string, else "".
func textOf(value []byte) string {
	if len(value) == 0 || value[0] != '"' {
		return ""
	}
	return jsonscan.Text(value)
}

// or returns the first of the values that says something: neither null nor an empty string.
func or(values ...[]byte) []byte {
	for _, value := range values {
		if len(value) > 0 && string(value) != `""` {
			return value
		}
	}
	return nil
}
