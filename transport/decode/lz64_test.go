package decode

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/transport/memory"
)

// lz64Vector is an element of testdata/lz64.json, made by the original lz-string (see make_lz64_vectors.mjs).
type lz64Vector struct {
	Name   string `json:"name"`
	Unit   string `json:"unit"`
	Count  int    `json:"count"`
	SHA256 string `json:"sha256"`
	LZ64   string `json:"lz64"`
}

func lz64Vectors(t testing.TB) []lz64Vector {
	t.Helper()
	file, err := os.ReadFile("testdata/lz64.json")
	require.NoError(t, err)
	var vectors []lz64Vector
	require.NoError(t, json.Unmarshal(file, &vectors))
	return vectors
}

func undoLZ64(src string, limit int64) (text string, replaced int, err error) {
	d := newDecoder(limit, nil)
	out, replaced, err := d.inflateLZ64([]byte(src), room{limit: limit})
	if err != nil {
		return "", 0, err
	}
	return string(out.Bytes), replaced, nil
}

func TestLZ64MeansWhatTheOriginalMeant(t *testing.T) {
	for _, vector := range lz64Vectors(t) {
		t.Run(vector.Name, func(t *testing.T) {
			text, _, err := undoLZ64(vector.LZ64, 1<<30)
			require.NoError(t, err)
			if vector.SHA256 != "" {
				sum := sha256.Sum256([]byte(text))
				require.Equal(t, vector.SHA256, hex.EncodeToString(sum[:]))
				return
			}
			// encoding/json also makes U+FFFD of a lone surrogate.
			require.Equal(t, strings.Repeat(vector.Unit, vector.Count), text)
		})
	}
}

func TestLoneSurrogatesInLZ64AreReplacedAndCounted(t *testing.T) {
	for name, units := range map[string][]uint16{
		"high at the end":     {'a', 0xd83d},
		"low at the start":    {0xde00, 'a'},
		"high before a pair":  {0xd83d, 0xd83d, 0xde00},
		"low after a pair":    {0xd83d, 0xde00, 0xde00},
		"high before U+D7FF":  {0xd83d, 0xd7ff},
		"wrong order":         {0xde00, 0xd83d},
		"a pair and no lones": {0xd83d, 0xde00},
	} {
		t.Run(name, func(t *testing.T) {
			text, replaced, err := undoLZ64(encodeLZ64(units), 1<<20)
			require.NoError(t, err)
			want := string(utf16.Decode(units))
			require.Equal(t, want, text)
			require.Equal(t, strings.Count(want, "\ufffd"), replaced)
		})
	}
}

func TestLZ64StopsAtTheLimitToTheByte(t *testing.T) {
	text := strings.Repeat("aäb", 1000)
	src := encodeLZ64(utf16.Encode([]rune(text)))
	got, _, err := undoLZ64(src, int64(len(text)))
	require.NoError(t, err)
	require.Equal(t, text, got)
	_, _, err = undoLZ64(src, int64(len(text))-1)
	require.EqualError(t, err, "maximum event size exceeded: Decompressed LZ64 payload would exceed 3999 bytes")
}

func TestATruncatedLZ64TextIsAnError(t *testing.T) {
	src := encodeLZ64(utf16.Encode([]rune(batch(3))))
	src = strings.TrimRight(src, "=")
	for n := range len(src) - 1 {
		_, _, err := undoLZ64(src[:n], 1<<20)
		require.Equal(t, errLZ64, err, "cut to %d", n)
	}
}

func TestALargeLZ64DictionaryCountsAgainstTheBudget(t *testing.T) {
	src := []byte(encodeLZ64(utf16.Encode([]rune(batch(200)))))
	budget := memory.NewBudget(minEntries * spanSize)
	_, _, err := newDecoder(1<<20, budget).inflateLZ64(src, room{limit: 1 << 20})
	require.Equal(t, memory.ErrSpent, err)
	require.Zero(t, budget.InUse())

	budget = memory.NewBudget(1 << 20)
	_, _, err = newDecoder(1<<20, budget).inflateLZ64(src, room{limit: 1 << 20})
	require.NoError(t, err)
	require.EqualValues(t, 256<<10, budget.InUse(), "the text is left, the dictionary is not")
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// lzWriter writes codes as the original does: the lowest bit of a code comes first, into the highest bit of a
// character.
type lzWriter struct {
	bits []byte
}

func (w *lzWriter) put(code, width int) {
	for range width {
		w.bits = append(w.bits, byte(code&1))
		code >>= 1
	}
}

func (w *lzWriter) text() string {
	bits := append(w.bits, 0)
	for len(bits)%6 != 0 {
		bits = append(bits, 0)
	}
	var text strings.Builder
	for ; len(bits) > 0; bits = bits[6:] {
		text.WriteByte(alphabet[bits[0]<<5|bits[1]<<4|bits[2]<<3|bits[3]<<2|bits[4]<<1|bits[5]])
	}
	for text.Len()%4 != 0 {
		text.WriteByte('=')
	}
	return text.String()
}

// encodeLZ64 is a plain encoder. It writes the longest known string each time.
func encodeLZ64(units []uint16) string {
	key := func(units []uint16) string {
		var b strings.Builder
		for _, unit := range units {
			b.WriteByte(byte(unit >> 8))
			b.WriteByte(byte(unit))
		}
		return b.String()
	}
	w := &lzWriter{}
	known := map[string]int{}
	size, width, left := reserved, 2, 1
	added := func() {
		size++
		if left--; left == 0 {
			left = 1 << width
			width++
		}
	}
	var last []uint16
	for len(units) > 0 {
		n := 0
		for n < len(units) {
			if _, ok := known[key(units[:n+1])]; !ok {
				break
			}
			n++
		}
		if n == 0 {
			n = 1
			if unit := int(units[0]); unit < 256 {
				w.put(codeByte, width)
				w.put(unit, 8)
			} else {
				w.put(codeUnit, width)
				w.put(unit, 16)
			}
			known[key(units[:1])] = size
			added()
		} else {
			w.put(known[key(units[:n])], width)
		}
		// The decoder makes an entry of the last string and the first unit of this one only now. The encoder may use
		// the entry from the next code on, when the decoder can use it, too.
		if last != nil {
			made := key(append(append([]uint16{}, last...), units[0]))
			if _, ok := known[made]; !ok {
				known[made] = size
			}
			added()
		}
		last, units = units[:n], units[n:]
	}
	w.put(codeEnd, width)
	return w.text()
}

// decodeLZ64 is the original's algorithm, copied as it stands.
func decodeLZ64(src string, limit int) (units []uint16, ok bool) {
	var bits []byte
	for _, c := range []byte(src) {
		value := base64Values[c]
		if value == base64Skip {
			continue
		}
		if value == base64Padding {
			break
		}
		if value > 63 {
			return nil, false
		}
		for i := 5; i >= 0; i-- {
			bits = append(bits, value>>i&1)
		}
	}
	read := func(width int) int {
		if len(bits) < width {
			return -1
		}
		code := 0
		for i := range width {
			code |= int(bits[i]) << i
		}
		bits = bits[width:]
		return code
	}
	dictionary := [][]uint16{nil, nil, nil}
	enlargeIn, numBits := 4, 3
	add := func(entry []uint16) {
		dictionary = append(dictionary, entry)
		enlargeIn--
	}
	grow := func() {
		if enlargeIn == 0 {
			enlargeIn = 1 << numBits
			numBits++
		}
	}
	literal := func(code int) []uint16 {
		unit := read(8 << code)
		if unit < 0 {
			return nil
		}
		return []uint16{uint16(unit)}
	}
	var w []uint16
	switch code := read(2); code {
	case 0, 1:
		if w = literal(code); w == nil {
			return nil, false
		}
		dictionary = append(dictionary, w)
	case 2:
		return nil, true
	default:
		return nil, false
	}
	units = append(units, w...)
	for len(units) <= limit {
		code := read(numBits)
		switch code {
		case -1:
			return nil, false
		case 0, 1:
			entry := literal(code)
			if entry == nil {
				return nil, false
			}
			add(entry)
			code = len(dictionary) - 1
		case 2:
			return units, true
		}
		grow()
		var entry []uint16
		switch {
		case code < len(dictionary):
			entry = dictionary[code]
		case code == len(dictionary):
			entry = append(append([]uint16{}, w...), w[0])
		default:
			return nil, false
		}
		units = append(units, entry...)
		add(append(append([]uint16{}, w...), entry[0]))
		w = entry
		grow()
	}
	return nil, false
}

func FuzzLZ64(f *testing.F) {
	for _, vector := range lz64Vectors(f) {
		if len(vector.LZ64) < 10000 {
			var sixes []byte
			for _, c := range []byte(strings.TrimRight(vector.LZ64, "=")) {
				sixes = append(sixes, base64Values[c])
			}
			f.Add(sixes, strings.Repeat(vector.Unit, min(vector.Count, 1000)))
		}
	}
	f.Fuzz(func(t *testing.T, sixes []byte, text string) {
		const limit = 1 << 20
		var src strings.Builder
		for _, six := range sixes {
			src.WriteByte(alphabet[six&63])
		}
		got, _, err := undoLZ64(src.String(), limit)
		if units, ok := decodeLZ64(src.String(), limit/3); ok {
			require.NoError(t, err)
			require.Equal(t, string(utf16.Decode(units)), got)
		} else if err == nil {
			require.Greater(t, len(got), limit/3)
		}

		units := utf16.Encode([]rune(text))
		if len(units) < limit/3 {
			got, _, err = undoLZ64(encodeLZ64(units), limit)
			require.NoError(t, err)
			require.Equal(t, string(utf16.Decode(units)), got)
		}
	})
}
