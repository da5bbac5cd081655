package jsonscan

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestTheScannerStopsAtTheDepthLimit(t *testing.T) {
	nest := func(n int, open, closing string) []byte {
		return []byte(strings.Repeat(open, n) + strings.Repeat(closing, n))
	}
	require.True(t, Valid(nest(MaxDepth, "[", "]")))
	require.False(t, Valid(nest(MaxDepth+1, "[", "]")))
	require.True(t, Valid([]byte(strings.Repeat(`{"a":`, MaxDepth)+"1"+strings.Repeat("}", MaxDepth))))
	require.False(t, Valid(nest(1_000_000, `{"a":[`, `]}`)))
}

func TestWhatIsNestedTooDeepIsPassedOverWhereThatIsAskedFor(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth) + `{"]":"}\"]","a":[{}]}` + strings.Repeat("]", MaxDepth)
	for text, want := range map[string]int{
		deep: 1, "[" + deep + "]": 1, `{"a":` + deep + `,"b":` + deep + `}`: 2, "[1,[2]]": 0,
		strings.Repeat(`{"a":[`, 1000) + strings.Repeat("]}", 1000): 1,
	} {
		s := Scanner{Data: []byte(text), PassDeep: true}
		require.Nil(t, s.End(s.Value(0, 0)), text)
		require.Equal(t, want, s.Deep, text)
		if want > 0 {
			require.False(t, Valid([]byte(text)))
		}
	}
	for _, broken := range []string{deep[:len(deep)-1], strings.Repeat("[", 10_000), deep + "]", `{"a":` + deep + "]",
		strings.Repeat("[", MaxDepth+1) + `"`} {
		s := Scanner{Data: []byte(broken), PassDeep: true}
		require.NotNil(t, s.End(s.Value(0, 0)), broken)
	}
}

func TestTextIsWhatAStringSays(t *testing.T) {
	for raw, want := range map[string]string{
		`""`: "", `"a"`: "a", `"\b\f\r\t\/"`: "\b\f\r\t/", `"a\ud83d"`: "a\ufffd", `"\u00fc\n\"\\"`: "\u00fc\n\"\\",
		`"\ud83d\ude00"`: "\U0001f600", "\"\u00fc\"": "\u00fc",
	} {
		require.Equal(t, want, Text([]byte(raw)))
	}
}

func TestTheTextOfAStringWithEscapesTakesNoMoreMemoryThanTheString(t *testing.T) {
	raw := []byte(`"` + strings.Repeat(`\u00e9`, 1000) + `"`)
	used := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			_ = Text(raw)
		}
	})
	require.LessOrEqual(t, used.AllocedBytesPerOp(), int64(len(raw))*5/4, "the allocator rounds up")
	require.EqualValues(t, 1, used.AllocsPerOp())
}

// FuzzScanner compares the scanner with encoding/json: both accept the same texts, except for their depth.
func FuzzScanner(f *testing.F) {
	for _, seed := range []string{
		`{"a":[{},[]," \"\\ \u00e9"],"b":-0.5e+3}`, `[[[[]]],{"a":{"b":{}}}]`, `"`, `[`, `{"`, `[1,]`, `nul`, `-`, `01`,
		`"\ud83d"`, ` 1 `, `1 2`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !utf8.Valid(data) {
			return
		}
		s := Scanner{Data: data}
		fault := s.End(s.Value(s.Space(0), 0))
		switch {
		case fault == nil:
			require.True(t, json.Valid(data), "%q passed", data)
		case s.Repairable || strings.Contains(fault.Error(), "nested deeper"):
		default:
			require.False(t, json.Valid(data), "%q: %v", data, fault)
		}
		require.Equal(t, fault == nil, Valid(data))
		var want string
		if text := bytes.TrimSpace(data); fault == nil && json.Unmarshal(text, &want) == nil && text[0] == '"' {
			require.Equal(t, want, Text(text))
		}
	})
}
