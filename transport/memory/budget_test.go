package memory

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestABudgetGivesNoMoreThanItHas(t *testing.T) {
	budget := NewBudget(10)
	require.True(t, budget.reserve(10, 0))
	require.False(t, budget.reserve(1, 0))
	require.True(t, budget.reserve(0, 0))
	budget.release(4, 4)
	require.False(t, budget.reserve(5, 0))
	require.True(t, budget.reserve(4, 0))
	require.EqualValues(t, 10, budget.InUse())
	require.EqualValues(t, 10, budget.Limit())
}

func TestABudgetHoldsUnderConcurrentUse(t *testing.T) {
	budget := NewBudget(100)
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for range 1000 {
				if budget.reserve(30, 0) {
					if inUse := budget.InUse(); inUse > 100 {
						t.Errorf("%d of 100 in use", inUse)
					}
					budget.release(30, 30)
				}
			}
		})
	}
	users.Wait()
	require.Zero(t, budget.InUse())
}

func TestTheLastBytesOfABudgetAreKeptForSmallHolders(t *testing.T) {
	budget := NewBudget(4 * Small)
	budget.Keep(Small)
	large, small, other := budget.Lease(), budget.Lease(), budget.Lease()
	require.True(t, large.Reserve(3*Small))
	require.False(t, large.Reserve(1), "a large holder does not become small by asking for little")
	require.True(t, small.Reserve(Small/2))
	require.False(t, small.Reserve(Small/2+1), "nor may a small one become large")
	_, err := NewBuffers(budget).Get(Small + 1)
	require.ErrorIs(t, err, ErrSpent)
	buffer, err := NewBuffers(budget).Get(Small / 2)
	require.NoError(t, err)
	require.Equal(t, Small/2, cap(buffer.Bytes))
	_, err = NewBuffers(budget).GetFor(1, Small+1)
	require.ErrorIs(t, err, ErrSpent, "what will be large is large at once")
	require.False(t, other.Reserve(1), "small holders cannot have more than all")
	budget.Keep(0)
	small.Release()
	require.True(t, large.Reserve(Small/2))
}

func TestANilBudgetIsUnbounded(t *testing.T) {
	var budget *Budget
	require.True(t, budget.reserve(1<<62, 0))
	budget.release(1<<62, 1<<62)
	require.Zero(t, budget.InUse())
	require.Zero(t, budget.Limit())
}
