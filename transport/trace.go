package transport

// traceParent returns the value of a traceparent header if it has the form of W3C Trace Context, version 00, else "".
// The form is version, trace id, parent id and flags in lower-case hexadecimal digits, and neither id is zero. Later
// versions begin with the same fields, which are then the result.
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
