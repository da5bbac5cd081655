package redis

import (
	"errors"
	"fmt"
	"strings"
)

// keys makes the keys of a prefix.
type keys struct{ prefix string }

const hexDigits = "0123456789ABCDEF"

// plain reports whether a byte stands for itself in a key. The others would end the hash tag of a Cluster too early, or
// could be mistaken for something else by people and their terminals.
func plain(c byte) bool { return c > ' ' && c < 0x7f && c != '{' && c != '}' && c != '%' }

// none is the tag of an empty name. Cluster takes no notice of an empty tag.
const none = "%"

// tag writes a name so that it can be the hash tag of a key.
func tag(name string) string {
	i := 0
	for i < len(name) && plain(name[i]) {
		i++
	}
	switch {
	case name == "":
		return none
	case i == len(name):
		return name
	}
	text := make([]byte, i, 3*len(name))
	copy(text, name)
	for _, c := range []byte(name[i:]) {
		if plain(c) {
			text = append(text, c)
		} else {
			text = append(text, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(text)
}

// untag is the inverse of tag. It reports whether tag could have written the text.
func untag(text string) (string, bool) {
	if text == none {
		return "", true
	}
	var name []byte
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			name = append(name, text[i])
			continue
		}
		if i+2 >= len(text) {
			return "", false
		}
		high, low := strings.IndexByte(hexDigits, text[i+1]), strings.IndexByte(hexDigits, text[i+2])
		if high < 0 || low < 0 {
			return "", false
		}
		name = append(name, byte(high<<4|low))
		i += 2
	}
	return string(name), tag(string(name)) == text
}

// digests returns what the keys of a token's digests begin with.
func (k keys) digests(token string) string { return k.prefix + "dedup:{" + tag(token) + "}:" }

// counters returns the key of the list of a token's counters of windows.
func (k keys) counters(token string) string { return k.prefix + "quotas:{" + tag(token) + "}" }

// counter returns the key of a counter. What stands before the first colon of its name is the kind of the key, unless
// that is a kind of key by itself.
func (k keys) counter(token, counter string) (string, error) {
	if counter == "" || len(counter) > maxName || len(token) > maxName {
		return "", fmt.Errorf("%w: the names of the counter and the token must have 1 to %d bytes", errImpossible,
			maxName)
	}
	kind, rest, divided := strings.Cut(counter, ":")
	switch kind = tag(kind); {
	case !divided:
		kind, rest = none+none, counter
	case kind == "dedup" || kind == "quotas" || kind == "probe":
		kind = none + kind
	}
	return k.prefix + kind + ":{" + tag(token) + "}:" + rest, nil
}

// maxName is how long the name of a counter, a node or a token may be in bytes.
const maxName = 512

var errImpossible = errors.New("impossible draw")

func (k keys) record(kind, name string) string { return k.prefix + kind + ":{" + tag(name) + "}" }

// recordName returns the name of the record that has a key.
func (k keys) recordName(kind, key string) (string, bool) {
	text, found := strings.CutPrefix(key, k.prefix+kind+":{")
	text, ends := strings.CutSuffix(text, "}")
	if !found || !ends {
		return "", false
	}
	name, ok := untag(text)
	return name, ok && name != ""
}

// recordPattern returns a pattern of SCAN for the keys of a kind of records.
func (k keys) recordPattern(kind string) string {
	return globs.Replace(k.prefix+kind) + ":{*}"
}

var globs = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `^`, `\^`, `\`, `\\`)

func (k keys) channel(kind string) string { return k.prefix + "changed:" + kind }

func (k keys) probe(tagged string) string { return k.prefix + "probe:{" + tagged + "}" }
