package observability

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestTheRootCauseIsTheInnermostErrorThatSaysSomething(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, test := range []struct {
		err  error
		want string
	}{
		{errors.New("alone"), "alone"},
		{fmt.Errorf("produce 3 events: %w", refused), "connection refused"},
		{fmt.Errorf("no broker: %w", errors.Join(nil, refused, errors.New("second"))), "connection refused"},
		{fmt.Errorf("%w and %w", errors.New("first"), errors.New("second")), "first"},
		{fmt.Errorf("read the answer of broker 1: %w", io.EOF), "read the answer of broker 1: EOF"},
		{io.EOF, "EOF"},
		{fmt.Errorf("wrapped: %w", errors.New("")), "wrapped: "},
		{&net.DNSError{Err: "no such host", Name: "kafka-1"}, "lookup kafka-1: no such host"},
	} {
		require.Equal(t, test.want, RootCause(test.err).Error())
	}
	require.NoError(t, RootCause(nil))
}

// causesAt returns a Causes with an interval of a minute, its clock, and a function that returns the lines since its
// last call.
func causesAt(t *testing.T) (causes *Causes, clock *time.Time, lines func() []string) {
	core, logs := observer.New(zap.DebugLevel)
	causes = NewCauses(zap.New(core, zap.AddCaller()), "events cannot be produced", "events are produced again",
		time.Minute)
	clock = new(time.Time)
	*clock = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	causes.now = func() time.Time { return *clock }
	return causes, clock, func() (lines []string) {
		for _, entry := range logs.TakeAll() {
			require.Contains(t, entry.Caller.File, "causes_test.go")
			line := fmt.Sprintf("%s %s failures=%d", entry.Level, entry.Message, entry.ContextMap()["failures"])
			if d, over := entry.ContextMap()["failed_for"]; over {
				line += fmt.Sprint(" failed_for=", d)
			}
			lines = append(lines, line)
		}
		return lines
	}
}

func TestACauseIsLoggedOnceAnIntervalAndWhenItIsOver(t *testing.T) {
	causes, clock, lines := causesAt(t)
	causes.Log(nil)
	require.Empty(t, lines())
	for range 100 {
		causes.Log(fmt.Errorf("dial 10.0.0.1:9092: %w", syscall.ECONNREFUSED))
	}
	require.Equal(t, []string{"error events cannot be produced: connection refused failures=1"}, lines())
	*clock = clock.Add(time.Minute)
	causes.Log(syscall.ECONNREFUSED)
	causes.Log(syscall.ECONNREFUSED)
	require.Equal(t, []string{"error events cannot be produced: connection refused failures=101"}, lines())
	*clock = clock.Add(time.Second)
	causes.Log(nil)
	causes.Log(nil)
	require.Equal(t, []string{"info events are produced again failures=102 failed_for=1m1s"}, lines())
}

func TestAnotherCauseIsLoggedAtOnce(t *testing.T) {
	causes, _, lines := causesAt(t)
	for n := range 100 {
		causes.Log(fmt.Errorf("read 127.0.0.1:%d: timed out after %d ms", 40000+n, n))
		causes.Log(errors.New("not leader for partition"))
	}
	require.Equal(t, []string{
		"error events cannot be produced: read 127.0.0.1:40000: timed out after 0 ms failures=1",
		"error events cannot be produced: not leader for partition failures=2",
	}, lines(), "numbers make no other cause, and causes that take turns are no change")
}

func TestWhatFailsNowAndThenIsLoggedOnceAnInterval(t *testing.T) {
	causes, clock, lines := causesAt(t)
	for range 3 {
		for range 60 {
			causes.Log(syscall.ECONNRESET)
			causes.Log(nil)
			*clock = clock.Add(time.Second)
		}
		require.Equal(t, []string{
			"error events cannot be produced: connection reset by peer failures=1",
			"info events are produced again failures=1 failed_for=0s",
		}, lines())
	}
}

func TestSoManyCausesAreLoggedAndNoMore(t *testing.T) {
	causes, clock, lines := causesAt(t)
	letters := func(from, to rune) {
		for letter := from; letter < to; letter++ {
			causes.Log(errors.New(string(letter)))
		}
	}
	letters('a', 'z')
	require.Len(t, lines(), maxCauses)
	*clock = clock.Add(time.Minute)
	letters('y', 'z')
	require.Len(t, lines(), 1, "room is made for new ones")
}

func TestCausesAreSafeForConcurrentUse(t *testing.T) {
	causes, _, lines := causesAt(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { causes.Log(syscall.ECONNREFUSED) })
	}
	all.Wait()
	require.Len(t, lines(), 1)
	for range 8 {
		all.Go(func() { causes.Log(nil) })
	}
	all.Wait()
	require.Equal(t, []string{"info events are produced again failures=8 failed_for=0s"}, lines())
}
