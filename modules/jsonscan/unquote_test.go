package jsonscan

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestUnquoteReturnsTheTextOfAString(t *testing.T) {
	for quoted, want := range map[string]struct {
		text string
		n    int
	}{
		`""`:                                 {"", 2},
		`"a" b`:                              {"a", 3},
		`"\"\\\/\b\f\n\r\t"`:                 {"\"\\/\b\f\n\r\t", 18},
		`"\u0041\u00e4\u20AC"`:               {"Aä€", 20},
		`"\ud83d\ude00!"`:                    {"😀!", 15},
		`"\ud83d"`:                           {"\xed\xa0\xbd", 8},
		`"\ude00\ud83d\ude00"`:               {"\xed\xb8\x80😀", 20},
		`"\ud83d\u0041"`:                     {"\xed\xa0\xbdA", 14},
		"\"a\nb\"":                           {"a\nb", 5},
		`"ä{\"a\":[1]}"`:                     {`ä{"a":[1]}`, 15},
		``:                                   {"", 0},
		`a"`:                                 {"", 0},
		`"abc`:                               {"abc", 0},
		`"abc\`:                              {"abc", 0},
		`"abc\x"`:                            {"abc", 0},
		`"abc\u00"`:                          {"abc", 0},
		`"` + strings.Repeat(`\\`, 99) + `"`: {strings.Repeat(`\`, 99), 200},
	} {
		text, n := Unquote([]byte("x"), []byte(quoted))
		require.Equal(t, "x"+want.text, string(text), quoted)
		require.Equal(t, want.n, n, quoted)
		inPlace := []byte(quoted)
		text, n = Unquote(inPlace[:0], inPlace)
		require.Equal(t, want.text, string(text), "in its own memory: %s", quoted)
		require.Equal(t, want.n, n, quoted)
	}
}

// encoding/json decodes every string that Unquote decodes and that is JSON, and to the same text.
func FuzzUnquote(f *testing.F) {
	for _, seed := range []string{`""`, `"a\u00e4\ud83d\ude00"`, `"\"{\\\"a\\\":1}\""`, `"\ud83d"`, "\"\xff\"", `"a`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, quoted []byte) {
		text, n := Unquote(nil, quoted)
		require.LessOrEqual(t, len(text), max(len(quoted)-1, 0))
		inPlace := bytes.Clone(quoted)
		again, m := Unquote(inPlace[:0], inPlace)
		require.Equal(t, string(text), string(again))
		require.Equal(t, n, m)
		var want string
		if n > 0 && utf8.Valid(text) && json.Unmarshal(quoted[:n], &want) == nil {
			require.Equal(t, want, string(text))
		}
	})
}
