package v1

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

// The headers of the protocol.
const (
	headerSDKInfo   = "PostHog-Sdk-Info"
	headerAttempt   = "PostHog-Attempt"
	headerRequestID = "PostHog-Request-Id"
	headerTimestamp = "PostHog-Request-Timestamp"
)

// maxSDKInfo is the longest PostHog-Sdk-Info that is written into the events' properties, in bytes.
const maxSDKInfo = 200

// header is what the headers of a request say.
type header struct {
	token  string
	sentAt time.Time
	// lib and libVersion are the SDK's name and version as JSON. They are nil if they are not written into the events.
	lib, libVersion []byte
}

// readHeader reads the headers. It checks them in the order in which the protocol reports their faults.
func readHeader(request *route.Request) (header, *taggedError) {
	var header header
	var fault *taggedError
	if header.token, fault = readToken(request); fault != nil {
		return header, fault
	}
	mediaType, _, _ := strings.Cut(request.ContentType, ";")
	if !strings.EqualFold(strings.TrimSpace(mediaType), route.TypeJSON) {
		return header, errContentType
	}

	var bad []string
	check := func(name string, sound bool) {
		if !sound {
			bad = append(bad, name)
		}
	}
	info := request.Get(headerSDKInfo)
	name, version, sound := cutSDKInfo(info)
	check(headerSDKInfo, sound)
	attempt, err := strconv.ParseUint(request.Get(headerAttempt), 10, 64)
	check(headerAttempt, err == nil && attempt >= 1)
	_, sound = posthog.ParseUUID(request.Get(headerRequestID))
	check(headerRequestID, sound)
	header.sentAt, sound = parseTime(request.Get(headerTimestamp))
	check(headerTimestamp, sound)
	check("User-Agent", request.Get("User-Agent") != "")
	if bad != nil {
		return header, errorf(events.Invalid, "missing_required_headers", events.ReasonInvalidEvent,
			"missing or malformed headers: %s", strings.Join(bad, ", "))
	}
	if len(info) <= maxSDKInfo {
		// The name and the version are printable ASCII, and what Go quotes of that is JSON.
		header.lib, header.libVersion = strconv.AppendQuote(nil, name), strconv.AppendQuote(nil, version)
	}

	if !isKnownEncoding(request.ContentEncoding) && !showsWhatItIs(request.Body) {
		return header, errEncoding
	}
	return header, nil
}

// token is readToken for the gates, which ask before the body is read.
func token(request *route.Request) (string, *events.Error) {
	token, fault := readToken(request)
	if fault != nil {
		return "", fault.err
	}
	return token, nil
}

// readToken returns the project token of the Authorization header. If that header belongs to the site that the service
// is a part of, the client has no place for the token but the query.
func readToken(request *route.Request) (string, *taggedError) {
	text, scheme := request.Authorization()
	switch scheme {
	case route.SchemeNone:
		return "", errNoToken
	case route.SchemeBasic, route.SchemeOther, route.SchemePlaceholder:
		if text = posthog.QueryToken(request); text == "" {
			return "", errNotBearer[scheme]
		}
	}
	token, err := posthog.Token(text)
	if err != nil {
		return "", &taggedError{err: err, tag: tagInvalidToken, reason: events.ReasonInvalidToken}
	}
	return token, nil
}

// cutSDKInfo splits name/version at its last slash. The name may contain slashes, as those of scoped npm packages do.
func cutSDKInfo(info string) (name, version string, ok bool) {
	for i := range len(info) {
		if info[i] < ' ' || info[i] > '~' {
			return "", "", false
		}
	}
	slash := strings.LastIndexByte(info, '/')
	if slash < 0 {
		return "", "", false
	}
	name, version = strings.TrimSpace(info[:slash]), strings.TrimSpace(info[slash+1:])
	return name, version, name != "" && version != ""
}

// isKnownEncoding reports whether a Content-Encoding names no encoding, or a single one that the protocol allows.
func isKnownEncoding(header string) bool {
	known := 0
	for header != "" {
		var name string
		name, header, _ = strings.Cut(header, ",")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "", "identity", "none":
		case "gzip", "x-gzip", "deflate", "br", "zstd":
			known++
		default:
			return false
		}
	}
	return known <= 1
}

// showsWhatItIs reports whether a body begins like a plain JSON object or like gzip, zstd or zlib, whatever
// its Content-Encoding says.
func showsWhatItIs(body []byte) bool {
	text := bytes.TrimLeft(bytes.TrimPrefix(body, []byte("\ufeff")), " \t\r\n")
	return len(text) > 0 && text[0] == '{' || decode.IsCompressed(body)
}

// parseTime reads a time of RFC 3339. It takes T and Z in either case, a space for the T, and leap seconds.
func parseTime(s string) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC(), true
	}
	if len(s) < len("2006-01-02T15:04:05Z") || len(s) > 64 || s[10] != 'T' && s[10] != 't' && s[10] != ' ' {
		return time.Time{}, false
	}
	s = s[:10] + "T" + strings.ToUpper(s[11:])
	leap := s[16:19] == ":60"
	if leap {
		s = s[:17] + "59" + s[19:]
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if leap {
		t = t.Add(time.Second)
	}
	return t.UTC(), err == nil
}
