//go:build hostile && linux

package hostile

import "encoding/base64"

// lz64 returns compressToBase64 of lz-string for n equal characters. The dictionary's newest entry is always one
// character longer than the last, so the text grows with the square root of n.
func lz64(n int) []byte {
	var out []byte
	var bits, count uint
	put := func(code, width uint) {
		for range width {
			bits = bits<<1 | code&1
			code >>= 1
			if count++; count == 8 {
				out, bits, count = append(out, byte(bits)), 0, 0
			}
		}
	}
	// The first code says that a character of eight bits follows.
	put(0, 2)
	put(' ', 8)
	entries, width, left := uint(4), uint(3), uint(4)
	for size, longest := 1, 1; size < n; longest++ {
		put(entries, width) // the entry that this very code makes
		size += longest + 1
		entries++
		if left--; left == 0 {
			left = 1 << width
			width++
		}
	}
	put(2, width) // the end
	for count > 0 {
		put(0, 1)
	}
	return []byte(base64.StdEncoding.EncodeToString(out))
}
