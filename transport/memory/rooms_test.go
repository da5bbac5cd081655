package memory

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestARoomIsAtMostTwiceAsLargeAsAskedFor(t *testing.T) {
	rooms := NewRooms(func(n int) *[]int {
		room := make([]int, 0, n)
		return &room
	})
	for asked, want := range map[int]int{
		0: 8, 1: 8, 8: 8, 9: 16, 64: 64, 65: 128, 4000: 4096, 4097: 8192, 70_000: 70_000,
	} {
		require.Equal(t, want, RoomFor(asked))
		room := rooms.Get(asked)
		require.Equal(t, want, cap(*room))
		rooms.Put(room, asked)
	}
	large := rooms.Get(70_000)
	rooms.Put(large, 70_000)
	require.NotSame(t, large, rooms.Get(70_000), "a room beyond the largest class is not kept")
}

func TestALeaseIsLowered(t *testing.T) {
	budget := NewBudget(100)
	lease := budget.Lease()
	require.True(t, lease.Reserve(60))
	lease.Lower(70)
	require.EqualValues(t, 60, budget.InUse())
	lease.Lower(10)
	require.EqualValues(t, 10, budget.InUse())
	lease.Release()
	require.Zero(t, budget.InUse())
}
