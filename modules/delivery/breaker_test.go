package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestABreakerLetsOneTryEachSecondUntilOneSucceeds(t *testing.T) {
	var b breaker
	now := time.Now()
	require.True(t, b.allow(now))
	require.True(t, b.allow(now))
	b.failed(now)
	require.True(t, b.isOpen())
	require.False(t, b.allow(now.Add(openFor-1)))
	require.True(t, b.allow(now.Add(openFor)))
	require.False(t, b.allow(now.Add(openFor)), "a second one")
	require.True(t, b.allow(now.Add(2*openFor)))
	b.succeeded()
	require.False(t, b.isOpen())
	require.True(t, b.allow(now))
}

// A time that was read from the clock has two readings. Only the one that does not jump counts.
func TestMomentsDoNotFollowTheClock(t *testing.T) {
	read := time.Now()
	require.Equal(t, int64(time.Minute), moment(read.Add(time.Minute))-moment(read))
	jumped := read.Round(0).Add(-24 * time.Hour)
	require.NotEqual(t, moment(read), moment(jumped), "a time without a reading of the monotonic clock")
	require.Greater(t, moment(read), int64(counts), "nothing has happened a moment ago when the process starts")
	require.Contains(t, beginning.String(), " m=", "the reading of the monotonic clock")
}
