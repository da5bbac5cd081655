package encode

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func FuzzWhatIsEscapedDecodesToTheSameBytes(f *testing.F) {
	for _, seed := range []string{
		"", `"`, `\`, "plain", `{"a":"b","c":[1,2,{"d":"\"\\\n"}]}`, "\"\"\"\"\"\"\"\"\"", `\\\\\\\\\\\\\\\\`,
		"seven b", "\n\t\r\b\f\x00\x1f\x7f", `"#"#"#"#"#"#`, `\]\]\]\]\]`, "é ü 漢字 🎉 \u2028", "        \"",
		"{\n  \"pretty\": true\n}", strings.Repeat(`{"k":"v"},`, 200), strings.Repeat("\x01", 1000),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if !utf8.Valid(src) {
			return // JSON is always UTF-8
		}
		prefix := []byte("before")
		escaped := appendEscaped(prefix[:len(prefix):len(prefix)], src)
		require.Equal(t, "before", string(escaped[:len(prefix)]))
		escaped = escaped[len(prefix):]

		var decoded string
		require.NoError(t, json.Unmarshal([]byte(`"`+string(escaped)+`"`), &decoded), "%q", escaped)
		require.Equal(t, string(src), decoded)
		require.Equal(t, string(appendEscapedBytes(nil, src)), string(escaped), "the fast loop and the plain one agree")
		require.Equal(t, len(escaped), escapedLen(src))

		var outer, inner string
		require.NoError(t, json.Unmarshal([]byte(`"\"`+string(appendTwiceEscaped(nil, src))+`\""`), &outer))
		require.NoError(t, json.Unmarshal([]byte(outer), &inner))
		require.Equal(t, string(src), inner)
	})
}

func BenchmarkEscape(b *testing.B) {
	// The rotations keep the branch predictor from learning one text by heart.
	base := properties
	var texts [][]byte
	for i := range 100 {
		texts = append(texts, []byte(base[i:]+base[:i]))
	}
	dst := make([]byte, 0, 4*len(base))
	b.SetBytes(int64(len(base)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		dst = appendEscaped(dst[:0], texts[i%len(texts)])
	}
}
