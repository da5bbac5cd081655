package observability

import "context"

// Check is one condition of being ready, such as "kafka reachable". Ready returns nil, or what is missing in words that an
// operator can act on; it must be fast (it is asked at every probe) and safe for concurrent use.
type Check struct {
	Name  string
	Ready func(ctx context.Context) error
}

// Override is a reason for being ready although a check fails: another part makes up for what is missing. Why returns the reason,
// in words for an operator, or "" while there is none; it must be fast and safe for concurrent use.
type Override struct {
	Check string
	Why   func(ctx context.Context) string
}
