package decode

// The entries of base64Values for characters without six bits of their own.
const (
	base64Skip    = 0x40 // line breaks and tabs
	base64Padding = 0x41
	base64Invalid = 0xff
)

// base64Values maps characters to their six bits, for both alphabets at once. A space is a plus that was sent without
// percent-encoding (spec 2.3, step 3).
var base64Values = func() (values [256]byte) {
	for i := range values {
		values[i] = base64Invalid
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		values[c] = byte(i)
	}
	values[' '], values['-'], values['_'] = 62, 62, 63
	values['\t'], values['\r'], values['\n'] = base64Skip, base64Skip, base64Skip
	values['='] = base64Padding
	return values
}()

// isBase64Of reports whether b begins like base64 of something that is worth decoding: JSON, gzip, zstd, zlib or, if
// nested, base64 again. Decoding anything else would only turn one text that is no JSON into another.
func isBase64Of(b []byte, nested bool) bool {
	var head [sniffed]byte
	n, ok := decodeBase64(head[:], b[:min(len(b), sniffed)], len(b) > sniffed)
	return ok && (isGzip(head[:n]) || isZstd(head[:n]) || isPlainZlib(head[:n]) || isJSON(head[:n]) ||
		nested && isBase64Of(head[:n], false))
}

// decodeBase64 decodes src into dst, which needs 3/4 of the length of src and may be src itself. It takes the standard
// and the URL-safe alphabet, with or without padding, and spaces for pluses. It ignores line breaks. If cut is set, src
// may end in the middle of a group.
func decodeBase64(dst, src []byte, cut bool) (n int, ok bool) {
	for len(src) > 0 {
		for len(src) >= 4 {
			a, b, c, d := base64Values[src[0]], base64Values[src[1]], base64Values[src[2]], base64Values[src[3]]
			if (a|b|c|d)&0xc0 != 0 {
				break
			}
			dst[n], dst[n+1], dst[n+2] = a<<2|b>>4, b<<4|c>>2, c<<6|d
			n += 3
			src = src[4:]
		}
		// This group has other characters in it, or it is the last one.
		var group [4]byte
		size := 0
		for size < len(group) && len(src) > 0 {
			value := base64Values[src[0]]
			switch {
			case value < 64:
				group[size] = value
				size++
			case value == base64Padding:
				if !isPadding(src) {
					return n, false
				}
				src = src[:1]
			case value != base64Skip:
				return n, false
			}
			src = src[1:]
		}
		if size == 1 && !cut {
			return n, false
		}
		if size > 1 {
			dst[n] = group[0]<<2 | group[1]>>4
			n++
		}
		if size > 2 {
			dst[n] = group[1]<<4 | group[2]>>2
			n++
		}
		if size > 3 {
			dst[n] = group[2]<<6 | group[3]
			n++
		}
	}
	return n, true
}

// isPadding reports whether b holds only padding, line breaks and spaces.
func isPadding(b []byte) bool {
	for _, c := range b {
		if value := base64Values[c]; value != base64Padding && value != base64Skip && c != ' ' {
			return false
		}
	}
	return true
}
