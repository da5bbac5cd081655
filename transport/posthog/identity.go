package posthog

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
)

const (
	// maxDistinctID is the longest distinct_id, in characters; a longer one is cut.
	maxDistinctID = 200
	// maxCanonical is the longest array or object, in bytes, that is put in order before it is cut. No user's name is a
	// larger one, but somebody could send it to make the service work.
	maxCanonical = 4 << 10
	// maxRead is how many bytes of a longer value are read: more than its first 200 characters can take, all of them
	// escaped.
	maxRead = 4 << 10
)

// identify gives the event the text of a distinct_id's JSON value, and notes if that had to be cut.
func identify(event *events.Event, raw []byte) {
	id, cut := distinctID(raw)
	event.DistinctID = id
	if cut {
		event.Notes |= events.NoteDistinctIDCut
	}
}

// isBlank reports whether a distinct_id names nobody.
func isBlank(id string) bool { return strings.TrimSpace(id) == "" }

// distinctID turns the JSON value of a distinct_id into the text that names the user, and reports whether it was cut.
// Anything but a string is written as JSON. The text aliases the value, or is a copy of no more than idSize bytes: of a
// longer text that was made on the way it keeps nothing alive.
func distinctID(raw []byte) (id string, cut bool) {
	switch raw[0] {
	case '"':
		id = jsonscan.Text(head(raw))
	case '{', '[':
		if id = jsonscan.Alias(raw); len(raw) <= maxCanonical {
			id = canonical(raw)
		}
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		id = numberText(raw)
	default: // true or false; the caller takes null for absent
		id = jsonscan.Alias(raw)
	}
	if strings.IndexByte(id, 0) >= 0 {
		id = strings.ReplaceAll(id, "\x00", "\ufffd")
	}
	if len(id) > maxDistinctID && utf8.RuneCountInString(id) > maxDistinctID {
		end := 0
		for range maxDistinctID {
			_, n := utf8.DecodeRuneInString(id[end:])
			end += n
		}
		return strings.Clone(id[:end]), true
	}
	return id, false
}

// idSize is the memory in bytes that the text of a distinct_id takes at most.
const idSize = maxDistinctID * utf8.UTFMax

// isCopied reports whether the text of a distinct_id is a copy, and no part of the JSON value.
func isCopied(raw []byte) bool {
	switch raw[0] {
	case '"':
		return len(raw) > maxDistinctID || jsonscan.IsEscaped(raw)
	case '{', '[':
		return true
	default:
		return false // or of the size of a number
	}
}

// head returns a string value as it is. It cuts a value longer than 2*maxRead to a string value of about maxRead bytes.
func head(raw []byte) []byte {
	if len(raw) <= 2*maxRead {
		return raw
	}
	end := 1
	for end < maxRead {
		switch {
		case raw[end] == '\\' && raw[end+1] == 'u':
			end += 6
		case raw[end] == '\\':
			end += 2
		default:
			end++
		}
	}
	for !utf8.RuneStart(raw[end]) {
		end++
	}
	return append(bytes.Clone(raw[:end]), '"')
}

// canonical writes an array or object compactly with sorted keys.
func canonical(raw []byte) string {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := decoder.Decode(&value); err != nil {
		return jsonscan.Alias(raw)
	}
	if err := encoder.Encode(value); err != nil {
		return jsonscan.Alias(raw)
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// numberText writes a number as upstream does. A 64-bit integer stays as it stands. Any other number becomes the
// shortest text of the nearest float64, with ".0" if it is whole, and with an exponent from 1e16 on and below 1e-5.
func numberText(raw []byte) string {
	s := jsonscan.Alias(raw)
	if len(s) > maxRead {
		return s
	}
	if _, err := strconv.ParseInt(s, 10, 64); err == nil && s != "-0" {
		return s
	}
	if _, err := strconv.ParseUint(s, 10, 64); err == nil {
		return s
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return s
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-5 || abs >= 1e16) {
		mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
		n, _ := strconv.Atoi(exponent)
		return mantissa + "e" + strconv.Itoa(n)
	}
	plain := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(plain, ".") {
		plain += ".0"
	}
	return plain
}

// parseUUID reads a UUID of any version in its usual forms: with hyphens, without, in braces or as a URN.
func parseUUID(s string) (uuid.UUID, bool) {
	if len(s) == 38 && (s[0] != '{' || s[37] != '}') {
		return uuid.UUID{}, false
	}
	id, err := uuid.Parse(s)
	return id, err == nil
}

// newUUID makes a UUIDv7 for an event that came without a uuid. Its time part is the event's own time in milliseconds.
func newUUID(at time.Time) uuid.UUID {
	ms := uint64(max(at.UnixMilli(), 0))
	a, b := rand.Uint64(), rand.Uint64()
	var id uuid.UUID
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = 0x70 | byte(a>>8)&0x0f
	id[7] = byte(a)
	for i := range 8 {
		id[8+i] = byte(b >> (8 * i))
	}
	id[8] = 0x80 | id[8]&0x3f
	return id
}
