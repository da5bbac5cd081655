package redis

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var hostile = []string{
	"", "phc_abc", "{", "}", "{}", "{a}", "}{", "a}:b", "a:b", "%", "%7D", "%%", "*", "?", "[a]", "\n", "\x00", "\x1b",
	" ", "\x7f", "ä", "\xff",
}

// slotTag returns what a Cluster takes of a key to find the key's slot.
func slotTag(key string) string {
	_, rest, found := strings.Cut(key, "{")
	tag, _, ends := strings.Cut(rest, "}")
	if !found || !ends || tag == "" {
		return key
	}
	return tag
}

func TestAllKeysOfATokenAreInOneSlotAndNoneIsAnothers(t *testing.T) {
	t.Parallel()
	k := keys{"capture:1:"}
	owners := map[string]string{}
	for _, token := range hostile {
		all := []string{k.digests(token), k.counters(token), k.record("project", token)}
		counters := append(hostile[1:], "quota:events", "rate:events", "dedup:x", "quotas:", "a", "a:", ":a")
		for _, counter := range counters {
			key, err := k.counter(token, counter)
			require.NoError(t, err)
			all = append(all, key)
		}
		for _, key := range all {
			require.Equal(t, tag(token), slotTag(key), "%q of %q", key, token)
			require.NotContains(t, owners, key)
			owners[key] = token
			for _, c := range []byte(key[:strings.IndexByte(key, '}')]) {
				require.True(t, c > ' ' && c < 0x7f, "%q", key)
			}
		}
	}
}

func TestAnOrdinaryTokenStandsForItself(t *testing.T) {
	t.Parallel()
	k := keys{"capture:1:"}
	key, err := k.counter("phc_abc", "quota:events:month:20261101")
	require.NoError(t, err)
	require.Equal(t, "capture:1:quota:{phc_abc}:events:month:20261101", key)
	require.Equal(t, "capture:1:project:{phc_abc}", k.record("project", "phc_abc"))
	require.Equal(t, "capture:1:dedup:{phc_abc}:", k.digests("phc_abc"))
}

func TestNamesThatAreTooLongAreRefused(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 513)
	for _, names := range [][2]string{{"token", ""}, {"token", long}, {long, "a"}} {
		_, err := keys{}.counter(names[0], names[1])
		require.ErrorIs(t, err, errImpossible)
	}
}

func TestATagIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.RuneFrom([]rune("{}%07DaA \x00")))).Draw(t, "name")
		written := tag(name)
		read, ok := untag(written)
		require.True(t, ok)
		require.Equal(t, name, read)
		require.NotContains(t, written, "{")
		require.NotContains(t, written, "}")
		require.NotEmpty(t, written)
	})
	for _, text := range []string{"", "%7", "%7d", "%61", "%zz", "a%", "a b", "{"} {
		name, ok := untag(text)
		require.False(t, ok && tag(name) != text, "%q", text)
		if text != "" {
			require.False(t, ok, "%q", text)
		}
	}
}

func TestAKeyOfAnotherKindIsNoRecord(t *testing.T) {
	t.Parallel()
	k := keys{"capture:1:"}
	for key, want := range map[string]bool{
		"capture:1:project:{a}": true, "capture:1:project:{a": false, "capture:1:project:a": false,
		"capture:1:projects:{a}": false, "capture:2:project:{a}": false, "capture:1:project:{%}": false,
		"capture:1:project:{a}:b}": false,
	} {
		name, ok := k.recordName("project", key)
		require.Equal(t, want, ok, key)
		if ok {
			require.Equal(t, "a", name)
		}
	}
	require.Equal(t, `a\*b\[1\]:project:{*}`, keys{"a*b[1]:"}.recordPattern("project"))
}
