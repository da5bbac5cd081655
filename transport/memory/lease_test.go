package memory

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestALeaseIsTakenInPartsAndGivenBackOnce(t *testing.T) {
	budget := NewBudget(100)
	other, lease := budget.Lease(), budget.Lease()
	require.True(t, other.Reserve(40))
	require.True(t, lease.Reserve(30))
	require.True(t, lease.Reserve(20))
	require.False(t, lease.Reserve(11))
	require.EqualValues(t, 50, lease.Held(), "what was not there changes nothing")
	require.EqualValues(t, 90, budget.InUse())

	lease.Release()
	lease.Release()
	require.EqualValues(t, 40, budget.InUse(), "the second release gives nothing back")
	require.Zero(t, lease.Held())
	require.True(t, lease.Reserve(60), "it can be used anew")
	lease.Release()
	other.Release()
	require.Zero(t, budget.InUse())
}

func TestALeaseIsRaisedToWhatIsNeededInAll(t *testing.T) {
	budget := NewBudget(100)
	lease := budget.Lease()
	require.True(t, lease.Raise(60))
	require.True(t, lease.Raise(10))
	require.EqualValues(t, 60, budget.InUse())
	require.True(t, lease.Raise(100))
	require.False(t, lease.Raise(101))
	require.EqualValues(t, 100, budget.InUse())
	lease.Release()
	require.Zero(t, budget.InUse())
}

func TestMoreThanHalfOfTheBudgetIsNeverThereBesideAText(t *testing.T) {
	budget := NewBudget(100)
	text, lease := budget.Lease(), budget.Lease()
	require.True(t, text.Reserve(60))
	require.Nil(t, lease.RaiseBeside(30))
	require.Equal(t, ErrSpent, lease.RaiseBeside(50), "once the budget is free it has them")
	require.Equal(t, ErrNever, lease.RaiseBeside(51))
	require.EqualValues(t, 30, lease.Held())
}

func TestTheZeroLeaseIsUnbounded(t *testing.T) {
	var lease Lease
	require.True(t, lease.Reserve(1<<62))
	lease.Release()
	require.Zero(t, lease.Held())
}

func TestWhatNeverFitsIsToldFromWhatDoesNotFitNow(t *testing.T) {
	budget := NewBudget(4 * Small)
	budget.Keep(Small)
	other, lease := budget.Lease(), budget.Lease()
	require.True(t, other.Reserve(2*Small))
	require.True(t, lease.Reserve(Small))
	require.Equal(t, ErrSpent, lease.Refusal(2*Small))
	require.Equal(t, ErrNever, lease.Refusal(2*Small+1), "with what the lease has already")
	_, err := NewBuffers(budget).Get(2 * Small)
	require.Equal(t, ErrSpent, err)
	_, err = NewBuffers(budget).Get(3*Small + 1)
	require.Equal(t, ErrNever, err, "the last bytes are kept for small holders")
}
