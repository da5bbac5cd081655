package observability

import "context"

// Check is one condition of being ready, such as "kafka reachable". Ready returns nil, or an error that tells an
// operator what is missing and can be acted on. Ready must be fast, because every probe calls it, and safe for
// concurrent use.
type Check struct {
	Name  string
	Ready func(ctx context.Context) error
}

// Override is a reason to be ready although a check fails: another part makes up for what is missing. Why returns the
// reason, in words for an operator, or "" while there is none. Why must be fast and safe for concurrent use.
type Override struct {
	Check string
	Why   func(ctx context.Context) string
}
