package memory

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestABudgetGivesNoMoreThanItHas(t *testing.T) {
	budget := NewBudget(10)
	require.True(t, budget.reserve(10))
	require.False(t, budget.reserve(1))
	require.True(t, budget.reserve(0))
	budget.release(4)
	require.False(t, budget.reserve(5))
	require.True(t, budget.reserve(4))
	require.EqualValues(t, 10, budget.InUse())
	require.EqualValues(t, 10, budget.Limit())
}

func TestABudgetHoldsUnderConcurrentUse(t *testing.T) {
	budget := NewBudget(100)
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for range 1000 {
				if budget.reserve(30) {
					if inUse := budget.InUse(); inUse > 100 {
						t.Errorf("%d of 100 in use", inUse)
					}
					budget.release(30)
				}
			}
		})
	}
	users.Wait()
	require.Zero(t, budget.InUse())
}

func TestANilBudgetIsUnbounded(t *testing.T) {
	var budget *Budget
	require.True(t, budget.reserve(1<<62))
	budget.release(1 << 62)
	require.Zero(t, budget.InUse())
	require.Zero(t, budget.Limit())
}
