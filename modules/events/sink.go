package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// Sink makes events safe. Write gives every pending event of the batch an outcome: Accept for what is safe now, Reject for
// what can never be (too large), Fail for the rest. It returns when all are decided or ctx is over, and keeps nothing of the
// batch afterwards. Write must be safe for concurrent use and keeps the order of events within a call.
type Sink interface {
	Write(ctx context.Context, batch *Batch)
}

// Layer wraps the base sink: a spool, a tee, a recorder. Layers with a lower Order are nearer to the pipeline and see a batch
// first.
type Layer struct {
	Order int
	Name  string
	Wrap  func(next Sink) Sink
}

// NewSink puts the layers around the base sink. Two layers with the same order are an error, because which comes first would
// be chance.
func NewSink(base Sink, layers ...Layer) (Sink, error) {
	ordered := slices.Clone(layers)
	slices.SortStableFunc(ordered, func(a, b Layer) int { return cmp.Compare(b.Order, a.Order) })
	var faults []error
	sink := base
	for i, layer := range ordered {
		if i > 0 && ordered[i-1].Order == layer.Order {
			faults = append(faults, fmt.Errorf("sink layers %q and %q both have order %d: give one another order", ordered[i-1].Name, layer.Name, layer.Order))
		}
		sink = layer.Wrap(sink)
	}
	return sink, errors.Join(faults...)
}
