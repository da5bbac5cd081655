package posthog

import "unsafe"

// alias returns the bytes as a string without a copy. The string is valid as long as the request's buffer is, which is what
// events.Event promises for its strings.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
