package memory

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// collector stands for the garbage collector. It counts the collections.
func collector(budget *Budget) *int {
	collections := 0
	budget.collect = func() { collections++ }
	return &collections
}

func TestWhatIsGivenBackCountsUntilItIsCollected(t *testing.T) {
	budget := NewBudget(10 * Small)
	collections := collector(budget)
	first, second := budget.Lease(), budget.Lease()
	require.True(t, first.Reserve(6*Small))
	first.Release()
	require.Zero(t, budget.InUse())
	require.True(t, second.Reserve(4*Small), "there is room beside the litter")
	require.Zero(t, *collections)
	require.True(t, second.Reserve(1), "there is none, but for litter nobody is refused")
	require.Equal(t, 1, *collections)
	require.Zero(t, budget.litter.Load())
	require.True(t, second.Reserve(6*Small-1))
	require.False(t, second.Reserve(1))
	require.Equal(t, 1, *collections, "what is held is not collected")
}

// A collection that has begun already may not see what is given back meanwhile.
func TestLitterOfACollectionCountsUntilTheNext(t *testing.T) {
	budget := NewBudget(4 * Small)
	other, lease := budget.Lease(), budget.Lease()
	require.True(t, other.Reserve(2*Small))
	require.True(t, lease.Reserve(2*Small))
	lease.Release()
	collections := 0
	budget.collect = func() {
		if collections++; collections == 1 {
			other.Release() // too late for this one
		}
	}
	require.True(t, lease.Reserve(2*Small))
	require.Equal(t, 1, collections)
	require.EqualValues(t, 2*Small, budget.litter.Load())
	require.True(t, lease.Reserve(Small))
	require.Equal(t, 2, collections)
	require.Zero(t, budget.litter.Load())
}

// The garbage of small holders is little, and they do not wait.
func TestSmallHoldersNeitherLitterNorWait(t *testing.T) {
	budget := NewBudget(4 * Small)
	collections := collector(budget)
	small, large := budget.Lease(), budget.Lease()
	require.True(t, small.Reserve(Small))
	small.Release()
	require.Zero(t, budget.litter.Load())
	require.True(t, large.Reserve(4*Small))
	large.Lower(2 * Small)
	large.Release()
	require.EqualValues(t, 4*Small, budget.litter.Load())
	require.True(t, small.Reserve(Small))
	require.Zero(t, *collections)
	require.True(t, large.Reserve(Small+1))
	require.Equal(t, 1, *collections)
}

func TestLargeBuffersAreLitterAlsoInAPool(t *testing.T) {
	for size, want := range map[int64]int64{
		1: 0, Small: 0, Small + 1: 2 * Small, MaxPooled: MaxPooled, MaxPooled + 1: MaxPooled + 1,
	} {
		budget := NewBudget(8 * MaxPooled)
		buffers := NewBuffers(budget)
		b, err := buffers.Get(size)
		require.NoError(t, err)
		buffers.Put(b)
		require.Equal(t, want, budget.litter.Load(), "of %d bytes", size)
	}
}

func TestWhatIsHeldAndLitterFitUnderConcurrentUse(t *testing.T) {
	const limit = 8 * Small
	budget := NewBudget(limit)
	collections := collector(budget)
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			lease := budget.Lease()
			for range 1000 {
				if lease.Reserve(3 * Small) {
					lease.Release()
				}
			}
		})
	}
	users.Wait()
	require.Zero(t, budget.InUse())
	require.LessOrEqual(t, budget.litter.Load(), int64(limit))
	require.Positive(t, *collections)
}
