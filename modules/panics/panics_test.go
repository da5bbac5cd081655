package panics

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func watched() (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	return zap.New(core), logs
}

func TestCatchReturnsAPanicAsAnError(t *testing.T) {
	broken := errors.New("broken")
	before := Count()
	require.NoError(t, Catch(func() error { return nil }))
	require.Equal(t, broken, Catch(func() error { return broken }))
	require.Equal(t, before, Count())
	err := Catch(func() error { panic(broken) })
	require.ErrorIs(t, err, broken)
	require.EqualError(t, err, "panic: broken")
	var caught *Error
	require.ErrorAs(t, err, &caught)
	require.Contains(t, string(caught.Stack), "TestCatchReturnsAPanicAsAnError")
	require.EqualError(t, Catch(func() error { panic(7) }), "panic: 7")
	require.Equal(t, before+2, Count())
}

func TestAGoroutineThatPanicsIsLoggedOnceWithItsStack(t *testing.T) {
	log, logs := watched()
	group := NewGroup(log)
	group.Go("the reader", func() { panic("no paper") })
	group.Wait()
	require.Equal(t, 1, logs.Len())
	line := logs.All()[0]
	require.Equal(t, "the reader panicked", line.Message)
	require.Equal(t, "no paper", line.ContextMap()["panic"])
	require.Contains(t, line.ContextMap()["stack"], "TestAGoroutineThatPanicsIsLoggedOnceWithItsStack")

	done := make(chan struct{})
	Go(log, "the writer", func() {
		defer close(done)
		panic("no ink")
	})
	<-done
	require.Eventually(t, func() bool { return logs.Len() == 2 }, time.Minute, time.Millisecond)
}

func TestWorkThatIsKeptRunsAgainWithGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, logs := watched()
		group := NewGroup(log)
		began := time.Now()
		var runs []time.Duration
		group.Keep(t.Context(), "the drain", func(context.Context) {
			runs = append(runs, time.Since(began))
			if len(runs) < 5 {
				panic("again")
			}
		})
		group.Wait()
		const ms = time.Millisecond
		require.Equal(t, []time.Duration{0, 100 * ms, 300 * ms, 700 * ms, 1500 * ms}, runs)
		require.Equal(t, 4, logs.Len())
	})
}

func TestThePauseIsBoundedAndBeginsAnewAfterACalmTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _ := watched()
		group := NewGroup(log)
		last := time.Now()
		var pauses []time.Duration
		group.Keep(t.Context(), "the drain", func(context.Context) {
			pauses = append(pauses, time.Since(last))
			if len(pauses) == 14 {
				return
			}
			if len(pauses) == 12 {
				time.Sleep(2 * calm)
			}
			last = time.Now()
			panic("again")
		})
		group.Wait()
		require.Equal(t, lastPause, pauses[11])
		require.Equal(t, []time.Duration{firstPause, 2 * firstPause}, pauses[12:])
	})
}

func TestWorkThatIsKeptEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, logs := watched()
		group := NewGroup(log)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		group.Keep(ctx, "the drain", func(context.Context) { panic("again") })
		group.Wait()
		require.Equal(t, 4, logs.Len(), "at 0, 0.1, 0.3 and 0.7 s")
	})
}

func TestTryReturnsAPanicAsAnErrorAndLogsIt(t *testing.T) {
	log, logs := watched()
	broken := errors.New("broken")
	require.Equal(t, broken, Try(log, "the reader", func() error { return broken }))
	require.Zero(t, logs.Len(), "an error is the caller's to log")
	before := Count()
	require.EqualError(t, Try(log, "the reader", func() error { panic("no paper") }), "panic: no paper")
	require.Equal(t, before+1, Count())
	require.Equal(t, "the reader panicked", logs.All()[0].Message)
	require.Contains(t, logs.All()[0].ContextMap()["stack"], "TestTryReturnsAPanicAsAnErrorAndLogsIt")
}

func TestATimersFunctionThatPanicsIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, logs := watched()
		AfterFunc(log, "the alarm", time.Second, func() { panic("asleep") })
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 1, logs.Len())
		require.Equal(t, "the alarm panicked", logs.All()[0].Message)
	})
}

func TestAGroupTellsWhenItsMembersHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _ := watched()
		group := NewGroup(log)
		leave := make(chan struct{})
		group.Go("the reader", func() { <-leave })
		group.Go("the writer", func() { panic("no ink") })
		ended := group.Ended()
		synctest.Wait()
		select {
		case <-ended:
			require.Fail(t, "a member still runs")
		default:
		}
		close(leave)
		<-ended
	})
}

// brokenCore is a logger's core that panics.
type brokenCore struct{ zapcore.Core }

func (brokenCore) Enabled(zapcore.Level) bool { return true }

func (c brokenCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return checked.AddCore(entry, c)
}

func (brokenCore) Write(zapcore.Entry, []zapcore.Field) error { panic("no disk") }

func TestALoggerThatPanicsEndsNothing(t *testing.T) {
	log := zap.New(brokenCore{zapcore.NewNopCore()})
	before := Count()
	require.EqualError(t, Try(log, "the reader", func() error { panic("no paper") }), "panic: no paper")
	require.Equal(t, before+2, Count(), "its own panic is counted as well")
}
