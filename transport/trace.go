package transport

// traceParent returns the value of a traceparent header if it is one as W3C Trace Context, version 00, has
// it: version, trace id, parent id and flags in lower-case hexadecimal, where neither id is zero. Later
// versions begin in the same way.
func traceParent(value []byte) string {
	const length = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if len(value) < length || len(value) > length && (string(value[:2]) == "00" || value[length] != '-') {
		return ""
	}
	value = value[:length]
	if value[2] != '-' || value[35] != '-' || value[52] != '-' || string(value[:2]) == "ff" {
		return ""
	}
	for _, field := range [][]byte{value[:2], value[3:35], value[36:52], value[53:]} {
		zero := true
		for _, c := range field {
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return ""
			}
			zero = zero && c == '0'
		}
		if zero && len(field) > 2 {
			return ""
		}
	}
	return string(value)
}
