package memory

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A buffer that cannot grow stays the caller's, and is counted until the caller puts it back.
func TestABufferThatCannotGrowIsKept(t *testing.T) {
	budget := NewBudget(2 * minPooled)
	buffers := NewBuffers(budget)
	b, err := buffers.Get(1)
	require.NoError(t, err)
	b.Bytes = append(b.Bytes, "text"...)
	kept, err := buffers.Grow(b, 2*minPooled)
	require.ErrorIs(t, err, ErrSpent)
	require.Same(t, b, kept)
	require.Equal(t, "text", string(kept.Bytes))
	require.EqualValues(t, minPooled, budget.InUse())
	buffers.Put(kept)
	require.Zero(t, budget.InUse())
}
