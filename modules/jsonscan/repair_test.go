package jsonscan

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// Section 0 of the protocol (docs/protocol.md): these faults are mended in place, and nothing else is.
func TestRepairMendsWhatSDKsGetWrong(t *testing.T) {
	for text, want := range map[string]string{
		`[{"a":NaN}]`:                   `[{"a":null}]`,
		`[{"a":[Infinity,-Infinity]}]`:  `[{"a":[null,null]}]`,
		`[{"NaN":"-Infinity \"NaN\""}]`: `[{"NaN":"-Infinity \"NaN\""}]`,
		`["\ud83d"]`:                    `["\ufffd"]`,
		`["\ude00\ud83d\ude00\ud83d"]`:  `["\ufffd\ud83d\ude00\ufffd"]`,
		`["\ud83d\ud83d\ude00"]`:        `["\ufffd\ud83d\ude00"]`,
		`["\\ud83d"]`:                   `["\\ud83d"]`,
		`["\uD83D\n"]`:                  `["\ufffd\n"]`,
		`{"\udc00":NaN}`:                `{"\ufffd":null}`,
		"[\"a\tb\r\nc\x00\x1f\x7f\"]":   `["a\tb\r\nc\u0000\u001f` + "\x7f\"]",
		"{\t\"a\tb\" :\n\"\"}":          "{\t\"a\\tb\" :\n\"\"}",
		"[\"caf\xe9!\"]":                "[\"caf\ufffd!\"]",
		"{\"\xff\xfe\":\"\u00e9\xc3\"}": "{\"\ufffd\ufffd\":\"\u00e9\ufffd\"}",
		"[\"\xed\xa0\xbd\"]":            "[\"\ufffd\ufffd\ufffd\"]",
		"[\"\\ud83d\n\xff\",nan]":       "[\"\\ufffd\\n\ufffd\",null]",
	} {
		mended, done := Repair([]byte(text))
		require.Equal(t, want, string(mended))
		require.True(t, json.Valid(mended), text)
		found, size := Survey([]byte(text))
		require.Equal(t, done, found, text)
		require.Len(t, mended, size, text)
		require.Equal(t, size, cap(mended), "%q: the copy is as large as the survey said", text)
	}
	_, done := Repair([]byte("[NaN,Infinity,\"\\ud83d\",-Infinity,\"\xff\n\t\"]"))
	require.Equal(t, Repairs{Numbers: 3, Surrogates: 1, Controls: 2, Bytes: 1}, done)
	for _, broken := range []string{`[NaN1]`, `[1NaN]`, `[NaNNaN]`, `{NaN:1}`, `["\ud83"]`, `[NaN`, `["\ud83d`,
		`[nano]`, `[infinit]`, `[--inf]`, `[nan(]`, `[nan)]`, `[nan(-)]`, `[1.#]`, `[1.#+]`, `[1.#INF+-1]`, `[2.#INF]`,
		`[-]`, `[+]`, `[+1]`, `[none]`, "[\xff]", "[\x00]", "[\"\\\n\"]", "[\"\\\xff\"]", "[\"\n]",
	} {
		mended, _ := Repair([]byte(broken))
		require.False(t, Valid(mended), broken)
	}
}

// The spellings are those of C (glibc, musl, the BSDs, AIX, Windows before and since 2015), C++, Java, JavaScript,
// .NET, Python, Go, Ruby, PHP, Rust, Swift and Lua.
func TestEverySpellingOfANumberThatIsNotFiniteBecomesNull(t *testing.T) {
	for _, word := range []string{
		"NaN", "nan", "NAN", "-nan", "-NaN", "-NAN", "+nan", "Infinity", "-Infinity", "+Infinity", "infinity",
		"INFINITY", "inf", "-inf", "+inf", "Inf", "+Inf", "-Inf", "INF", "-INF", "∞", "-∞", "nan(ind)",
		"-nan(ind)", "nan(snan)", "-NAN(IND)", "nan(0x8000000000000)", "NaNQ", "NaNS", "-NaNQ", "1.#INF", "-1.#INF",
		"1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "1.#SNAN", "1.#INF00", "-1.#IND00", "1.#QNAN0", "1.#J", "-1.#IO",
		"1.#INF00e+000", "1.#R", "1.#inf",
	} {
		for _, around := range []string{"[%]", `{"a":%}`, `{"a": % ,"b":1}`, "[1,\t%\n]", "%"} {
			text := []byte(strings.ReplaceAll(around, "%", word))
			scan := Scanner{Data: text}
			require.Negative(t, scan.Value(scan.Space(0), 0), "%s", text)
			require.True(t, scan.Repairable, "%s", text)
			mended, done := Repair(text)
			require.Equal(t, strings.ReplaceAll(around, "%", "null"), string(mended))
			require.Equal(t, Repairs{Numbers: 1}, done)
		}
		inText := []byte(`["` + word + `"]`)
		require.True(t, Valid(inText))
		mended, done := Repair(inText)
		require.Equal(t, inText, mended)
		require.False(t, done.Any())
	}
}

// An answer names the byte of the text that the client has sent.
func TestAFaultOfAMendedTextIsFoundInTheTextThatWasSent(t *testing.T) {
	for text, want := range map[string]string{
		"[NaN,x]": "expected a value at byte 5",
		"[Infinity,\"\xff\",\"\n\",\"\\ud83d\",x]": "expected a value at byte 27",
		"[x,NaN]":   "expected a value at byte 1",
		"[nan nan]": "expected , or ] in array at byte 5",
		"[\"\t\"":   "unexpected end of JSON at byte 4",
		"[nan":      "unexpected end of JSON at byte 4",
	} {
		mended, _ := Repair([]byte(text))
		scan := Scanner{Data: mended}
		fault := scan.End(scan.Value(0, 0))
		require.NotNil(t, fault, text)
		require.EqualError(t, fault.Origin([]byte(text)), want, text)
	}
}

var (
	stringOrToken = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*"?|[^ \t\n\r,:\[\]{}"]+`)
	notFinite     = regexp.MustCompile(
		`^[+-]?(?:(?i:nan[qs]?|nan\(\w*\)|inf|infinity)|∞|1\.#\w+[+-]?[0-9]*)$`)
	inString = regexp.MustCompile(`(?s)\\u[0-9a-fA-F]{4}|\\.|[\x00-\x1f]`)
)

// mendBySearch is Repair of valid UTF-8 written the slow way, for comparison.
func mendBySearch(data []byte) []byte {
	return stringOrToken.ReplaceAllFunc(data, func(token []byte) []byte {
		switch {
		case token[0] != '"' && notFinite.Match(token):
			return []byte("null")
		case token[0] != '"':
			return token
		}
		found := inString.FindAllIndex(token, -1)
		var out []byte
		copied := 0
		for n := 0; n < len(found); n++ {
			at := found[n]
			kind := strings.ToLower(string(token[at[0]:at[1]]))
			if len(kind) == 1 {
				escaped, _ := json.Marshal(kind)
				out = append(append(out, token[copied:at[0]]...), escaped[1:len(escaped)-1]...)
				copied = at[1]
				continue
			}
			if len(kind) != 6 || kind < `\ud800` || kind > `\udfff` {
				continue
			}
			if kind < `\udc00` && n+1 < len(found) && found[n+1][0] == at[1] {
				if low := strings.ToLower(string(token[at[1]:found[n+1][1]])); len(low) == 6 &&
					low >= `\udc00` && low <= `\udfff` {
					n++
					continue
				}
			}
			out = append(append(out, token[copied:at[0]]...), `\ufffd`...)
			copied = at[1]
		}
		return append(out, token[copied:]...)
	})
}

// FuzzRepair compares Repair with the slow way and with the scanner: a text that needs a repair needs it once, and what
// was not UTF-8 is.
func FuzzRepair(f *testing.F) {
	for _, seed := range []string{`[{"a":NaN,"b":"\ud83d","c":-Infinity}]`, "[\"\\ud83d\\ude00\", 1, \"\x7f\"]",
		`["\\ud83d\udc00`, `{"\udc00":NaN`, "[\"a\nb\x00\",nan(ind),-1.#IND00]", "{\"\xff\":\"\\\xff\"}", "[\"\\\n\"]",
		"[\"\t\\\u02aa\"]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := Scanner{Data: data}
		valid := utf8.Valid(data)
		if fault := s.End(s.Value(s.Space(0), 0)); valid && (fault == nil || !s.Repairable) {
			return
		}
		found, size := Survey(data)
		mended, done := Repair(data)
		require.Equal(t, found, done)
		require.Len(t, mended, size)
		if valid {
			if want := mendBySearch(data); !bytes.Equal(want, mended) {
				t.Fatalf("Repair(%q) = %q, want %q", data, mended, want)
			}
			require.True(t, done.Any())
		}
		again := Scanner{Data: mended}
		fault := again.End(again.Value(again.Space(0), 0))
		require.False(t, again.Repairable, "%q needs repair a second time: %v", data, fault)
		if fault == nil {
			require.True(t, json.Valid(mended), "%q", mended)
			require.True(t, utf8.Valid(mended), "%q", mended)
		}
	})
}
