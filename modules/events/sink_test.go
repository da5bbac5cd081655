package events

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

type sinkFunc func(ctx context.Context, batch *Batch)

func (f sinkFunc) Write(ctx context.Context, batch *Batch) { f(ctx, batch) }

func TestLayersOfLowerOrderSeeABatchFirst(t *testing.T) {
	var seen []string
	base := sinkFunc(func(context.Context, *Batch) { seen = append(seen, "base") })
	layer := func(order int, name string) Layer {
		return Layer{Order: order, Name: name, Wrap: func(next Sink) Sink {
			return sinkFunc(func(ctx context.Context, batch *Batch) {
				seen = append(seen, name)
				next.Write(ctx, batch)
			})
		}}
	}
	sink, err := NewSink(base, layer(20, "tee"), layer(-5, "record"), layer(30, "spool"))
	require.NoError(t, err)

	sink.Write(t.Context(), &Batch{})

	require.Equal(t, []string{"record", "tee", "spool", "base"}, seen)
}

func TestTwoLayersOfOneOrderAreRefused(t *testing.T) {
	same := func(next Sink) Sink { return next }
	_, err := NewSink(sinkFunc(func(context.Context, *Batch) {}),
		Layer{Order: 1, Name: "tee", Wrap: same}, Layer{Order: 2, Name: "other", Wrap: same}, Layer{Order: 1, Name: "spool", Wrap: same})
	require.EqualError(t, err, `sink layers "tee" and "spool" both have order 1: give one another order`)
}
