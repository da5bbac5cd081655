package delivery

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestABreakerLetsOneThroughFromTimeToTime(t *testing.T) {
	t.Parallel()
	b := breaker{openFor: time.Second}
	now := time.Now()
	require.True(t, b.allow(now))
	require.True(t, b.allow(now))
	require.False(t, b.isOpen())
	b.failed(now)
	require.True(t, b.isOpen())
	require.False(t, b.allow(now.Add(999*time.Millisecond)))
	var allowed atomic.Int32
	var requests sync.WaitGroup
	for range 10 {
		requests.Go(func() {
			if b.allow(now.Add(time.Second)) {
				allowed.Add(1)
			}
		})
	}
	requests.Wait()
	require.EqualValues(t, 1, allowed.Load(), "one of those that come at once")
	require.True(t, b.isOpen(), "until it has succeeded")
	require.False(t, b.allow(now.Add(1500*time.Millisecond)))
	require.True(t, b.allow(now.Add(2*time.Second)), "nobody knows what became of the first")
	b.succeeded()
	require.False(t, b.isOpen())
	require.True(t, b.allow(now))
}
