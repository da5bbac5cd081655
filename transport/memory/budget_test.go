package memory

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestABudgetGivesNoMoreThanItHas(t *testing.T) {
	budget := NewBudget(10)
	require.True(t, budget.Reserve(10))
	require.False(t, budget.Reserve(1))
	require.True(t, budget.Reserve(0))
	budget.Release(4)
	require.False(t, budget.Reserve(5))
	require.True(t, budget.Reserve(4))
	require.EqualValues(t, 10, budget.InUse())
	require.EqualValues(t, 10, budget.Limit())
}

func TestABudgetHoldsUnderConcurrentUse(t *testing.T) {
	budget := NewBudget(100)
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for range 1000 {
				if budget.Reserve(30) {
					if inUse := budget.InUse(); inUse > 100 {
						t.Errorf("%d of 100 in use", inUse)
					}
					budget.Release(30)
				}
			}
		})
	}
	users.Wait()
	require.Zero(t, budget.InUse())
}

func TestANilBudgetIsUnbounded(t *testing.T) {
	var budget *Budget
	require.True(t, budget.Reserve(1<<62))
	budget.Release(1 << 62)
	require.Zero(t, budget.InUse())
	require.Zero(t, budget.Limit())
}
