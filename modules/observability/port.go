package observability

import "context"

// Check is one condition of being ready, such as "kafka reachable". Ready returns nil, or what is missing in words that an
// operator can act on; it must be fast (it is asked at every probe) and safe for concurrent use.
type Check struct {
	Name  string
	Ready func(ctx context.Context) error
}
