package terminal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/terminal"
)

func TestWhatATerminalObeysIsEscaped(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ text, want string }{
		"plain":                     {"signed up, größer 日本 🎉", "signed up, größer 日本 🎉"},
		"escape":                    {"\x1b]0;title\a", `\u001b]0;title\u0007`},
		"layout":                    {"a\nb\tc\rd", `a\nb\tc\rd`},
		"DEL":                       {"a\x7f", `a\u007f`},
		"C1":                        {"a\u009b31m", `a\u009b31m`},
		"C1 as a byte":              {"a\x9b31m", `a\ufffd31m`},
		"overlong":                  {"\xc0\x9b", `\ufffd\ufffd`},
		"a surrogate":               {"\xed\xa0\x80", `\ufffd\ufffd\ufffd`},
		"bidi":                      {"a\u202eb\u2066c\u200ed\u061c", `a\u202eb\u2066c\u200ed\u061c`},
		"separators":                {"a\u2028b\u2029c", `a\u2028b\u2029c`},
		"zero width":                {"a\u200bb\ufeffc\u2060", `a\u200bb\ufeffc\u2060`},
		"tags":                      {"a\U000e0041", `a\udb40\udc41`},
		"joiners":                   {"👩\u200d💻 می\u200cخواهم", "👩\u200d💻 می\u200cخواهم"},
		"a format character to see": {"\u0600", "\u0600"},
		"the replacement character": {"a\ufffdb", "a\ufffdb"},
	} {
		require.Equal(t, test.want, terminal.Escape(test.text), name)
	}
}

// deaf is a writer whose reader never reads.
type deaf struct{}

func (deaf) Write([]byte) (int, error) { return 0, errors.New("nobody reads") }

func TestAWriterEscapesAcrossWritesAndKeepsLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := terminal.NewWriter(&out)
	require.Same(t, w, terminal.NewWriter(w))
	for _, b := range []byte("a\tö🎉\u202e\xe2\n\x1b[2Jforged\r\n") {
		n, err := w.Write([]byte{b})
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}
	require.Equal(t, "a\tö🎉\\u202e\\ufffd\n\\u001b[2Jforged\\r\n", out.String())
	out.Reset()
	_, err := terminal.Raw(w).Write([]byte(terminal.Bold.Paint("\x1b[8m") + terminal.Plain.Paint("x\r")))
	require.NoError(t, err)
	require.Equal(t, "\x1b[1m\\u001b[8m\x1b[0mx\\r", out.String())
	_, err = terminal.NewWriter(deaf{}).Write([]byte("x"))
	require.EqualError(t, err, "nobody reads")
}

func FuzzEscapedTextIsObeyedByNoTerminalAndJSONKeepsItsMeaning(f *testing.F) {
	f.Add("\x1b[31m\u202e\xff🎉\U000e0041")
	f.Fuzz(func(t *testing.T, text string) {
		escaped := terminal.Escape(text)
		require.True(t, utf8.ValidString(escaped))
		require.Equal(t, escaped, terminal.Escape(escaped))
		if utf8.ValidString(text) {
			quoted, err := json.Marshal(text)
			require.NoError(t, err)
			var got string
			require.NoError(t, json.Unmarshal(terminal.EscapeLines(quoted), &got))
			require.Equal(t, text, got)
		}
	})
}
