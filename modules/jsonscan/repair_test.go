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

// Section 0 of the protocol (docs/protocol.md): bare NaN and infinities become null, the escape of a lone surrogate
// becomes U+FFFD, and nothing else is mended.
func TestRepairMendsTheTwoThingsThatSDKsGetWrong(t *testing.T) {
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
	} {
		mended, _ := Repair([]byte(text))
		require.Equal(t, want, string(mended))
		require.True(t, json.Valid(mended), text)
	}
	_, done := Repair([]byte(`[NaN,Infinity,"\ud83d",-Infinity]`))
	require.Equal(t, Repairs{Numbers: 3, Surrogates: 1}, done)
	for _, broken := range []string{`[nan]`, `[NaN1]`, `[-NaN]`, `[1NaN]`, `[+Infinity]`, `[NaNNaN]`, `{NaN:1}`,
		`[Inf]`, `["\ud83"]`, `[NaN`, `["\ud83d`} {
		mended, _ := Repair([]byte(broken))
		require.False(t, Valid(mended), broken)
	}
}

var (
	stringOrNumber = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*"?|NaN|-?Infinity`)
	unicodeEscape  = regexp.MustCompile(`(?s)\\u[0-9a-fA-F]{4}|\\.`)
)

// mendBySearch is Repair written the slow way, for comparison.
func mendBySearch(data []byte) []byte {
	return stringOrNumber.ReplaceAllFunc(data, func(token []byte) []byte {
		if token[0] != '"' {
			return []byte("null")
		}
		escapes := unicodeEscape.FindAllIndex(token, -1)
		out := bytes.Clone(token)
		for n := 0; n < len(escapes); n++ {
			at := escapes[n]
			kind := strings.ToLower(string(token[at[0]:at[1]]))
			if len(kind) != 6 || kind < `\ud800` || kind > `\udfff` {
				continue
			}
			if kind < `\udc00` && n+1 < len(escapes) && escapes[n+1][0] == at[1] {
				if low := strings.ToLower(string(token[at[1]:escapes[n+1][1]])); len(low) == 6 &&
					low >= `\udc00` && low <= `\udfff` {
					n++
					continue
				}
			}
			copy(out[at[0]:], `\ufffd`)
		}
		return out
	})
}

// FuzzRepair compares Repair with the slow way and with the scanner: a text that needs a repair needs it once.
func FuzzRepair(f *testing.F) {
	for _, seed := range []string{`[{"a":NaN,"b":"\ud83d","c":-Infinity}]`, "[\"\\ud83d\\ude00\", 1, \"\x7f\"]",
		`["\\ud83d\udc00`, `{"\udc00":NaN`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := Scanner{Data: data}
		if !utf8.Valid(data) || s.End(s.Value(s.Space(0), 0)) == nil || !s.Repairable {
			return
		}
		mended, done := Repair(data)
		if want := mendBySearch(data); !bytes.Equal(want, mended) {
			t.Fatalf("Repair(%q) = %q, want %q", data, mended, want)
		}
		require.True(t, done.Any())
		require.LessOrEqual(t, len(mended), len(data)*4/3)
		again := Scanner{Data: mended}
		fault := again.End(again.Value(again.Space(0), 0))
		require.False(t, again.Repairable, "%q needs repair a second time: %v", data, fault)
	})
}
