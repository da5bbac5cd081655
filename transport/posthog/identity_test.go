package posthog

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// Section 2.9 of the protocol.
func TestDistinctIDIsTextWhateverWasSent(t *testing.T) {
	long := strings.Repeat("ü", 250)
	for raw, want := range map[string]string{
		`"user"`: "user", `" user "`: " user ", `""`: "", `"  \t"`: "  \t", `"\u00a0"`: "\u00a0",
		`23`: "23", `23.4`: "23.4", `-7`: "-7", `18446744073709551615`: "18446744073709551615", `1.0`: "1.0",
		`1e2`:  "100.0",
		`1e21`: "1e21", `0.000001`: "1e-6", `1e16`: "1e16", `-0`: "-0.0",
		`123456789012345678901234567890`: "1.2345678901234568e29",
		`["a", "b"]`:                     `["a","b"]`, `{"b": 1, "a": [true, null]}`: `{"a":[true,null],"b":1}`,
		`{"a":"<&>"}`:                                       `{"a":"<&>"}`,
		`[` + strings.Repeat(` 1,`, 2000) + `1]`:            (`[` + strings.Repeat(` 1,`, 2000))[:200],
		`"` + strings.Repeat(`\u00fc`, 10_000) + `"`:        strings.Repeat("ü", 200),
		`"` + strings.Repeat(`ü`, 10_000) + `"`:             strings.Repeat("ü", 200),
		`"` + strings.Repeat(`\"\ud83d\ude00`, 5_000) + `"`: strings.Repeat(`"😀`, 100),
		strings.Repeat(`1`, 10_000):                         strings.Repeat(`1`, 200),
		`true`:                                              "true", `"a\u0000b"`: "a\ufffdb", `"\u00fc"`: "ü",
		`"` + long + `"`:                     long[:400],
		`"` + strings.Repeat("ü", 200) + `"`: strings.Repeat("ü", 200),
	} {
		id, cut := distinctID([]byte(raw))
		require.Equal(t, want, id, raw)
		require.Equal(t, utf8.RuneCountInString(want) == 200 && len(raw) > 2*200+2, cut, raw)
	}
}

// Section 2.10 of the protocol.
func TestNewUUIDCarriesTheEventsTime(t *testing.T) {
	at := time.Date(2026, 11, 24, 1, 2, 3, 456_000_000, time.UTC)
	id := newUUID(at)
	require.EqualValues(t, 7, id.Version())
	require.Equal(t, "RFC4122", id.Variant().String())
	seconds, nanos := id.Time().UnixTime()
	require.Equal(t, at, time.Unix(seconds, nanos).UTC())
	require.NotEqual(t, id, newUUID(at))
	require.Equal(t, "00000000-0000-7", newUUID(time.Unix(-5, 0)).String()[:15])
}

// Section 2.10 of the protocol.
func TestParseUUIDTakesEveryUsualForm(t *testing.T) {
	const want = "0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d"
	for _, text := range []string{want, strings.ToUpper(want), strings.ReplaceAll(want, "-", ""), "{" + want + "}",
		"urn:uuid:" + want} {
		id, ok := parseUUID(text)
		require.True(t, ok, text)
		require.Equal(t, want, id.String())
	}
	for _, text := range []string{"x", "<" + want + ">", want + "0", "0190a6e2_6c1f_7a3b_8c2d_1e2f3a4b5c6d"} {
		_, ok := parseUUID(text)
		require.False(t, ok, text)
	}
}
