// Package panics keeps a panic in one part of the service from ending the others. It starts every goroutine of the
// service; a test in app/standard finds those that it does not start. A panic is counted, logged once with its stack,
// and ends only the work that panicked. Work that has to go on is started again, with growing pauses.
//
// The part itself repairs what its panic has left undone: it answers the callers that wait, gives back what it has
// taken, and begins again from a state that can be trusted. A callback that a library calls in a goroutine of its own
// is such a part as well.
//
// The count is the count of the process. If several services share a process, as in tests, each of them shows all
// panics.
package panics

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Error is a panic that was caught.
type Error struct {
	Value any
	Stack []byte
}

func (e *Error) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the value of the panic if that is an error.
func (e *Error) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

var count atomic.Int64

// Count returns how many panics have been caught since the process began.
func Count() int64 { return count.Load() }

// Caught counts a panic and returns it as an error. value is the result of recover; Caught returns nil if value is nil.
// A deferred function that calls recover itself uses Caught. The stack is that of the panic.
func Caught(value any) *Error {
	if value == nil {
		return nil
	}
	count.Add(1)
	return &Error{Value: value, Stack: debug.Stack()}
}

// Catch runs f and returns its error, or the *Error of its panic.
func Catch(f func() error) (err error) {
	defer func() {
		if caught := Caught(recover()); caught != nil {
			err = caught
		}
	}()
	return f()
}

// Log writes the log line about a panic: who panicked, and the stack. It returns even if the logger panics itself.
func Log(log *zap.Logger, who string, caught *Error, fields ...zap.Field) {
	defer func() { _ = Caught(recover()) }()
	log.WithOptions(zap.AddCallerSkip(1)).Error(who+" panicked",
		append(fields, zap.Any("panic", caught.Value), zap.ByteString("stack", caught.Stack))...)
}

// Try is Catch and Log: it runs f and returns its error, or the *Error of its panic, which Try has logged.
func Try(log *zap.Logger, who string, f func() error) (err error) {
	defer func() {
		if caught := Caught(recover()); caught != nil {
			Log(log, who, caught)
			err = caught
		}
	}()
	return f()
}

// Go runs f in a goroutine of its own. A panic is counted and logged, and ends only this goroutine. name tells in the
// log whose goroutine it is.
func Go(log *zap.Logger, name string, f func()) { go Do(log, name, f) }

// AfterFunc is time.AfterFunc; it treats a panic of f as Go does.
func AfterFunc(log *zap.Logger, name string, after time.Duration, f func()) *time.Timer {
	return time.AfterFunc(after, func() { Do(log, name, f) })
}

// Do runs f, and reports whether it returned. A panic is counted and logged.
func Do(log *zap.Logger, who string, f func()) (returned bool) {
	_ = Try(log, who, func() error {
		f()
		returned = true
		return nil
	})
	return returned
}

// firstPause is the pause before work is started again after its first panic. The pause grows to lastPause.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
	// calm is how long work has to run before its next panic counts as the first one again.
	calm = time.Minute
)

// Group is a group of goroutines. Its Go and Keep may be called at any time before Wait.
type Group struct {
	log *zap.Logger
	wg  sync.WaitGroup
}

// NewGroup returns a group that logs its members' panics.
func NewGroup(log *zap.Logger) *Group { return &Group{log: log} }

// Go is the function Go for a member of the group.
func (g *Group) Go(name string, f func()) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		Do(g.log, name, f)
	}()
}

// Keep runs f in a goroutine until f returns or ctx is over. After a panic it runs f again, with pauses that grow from
// a tenth of a second to half a minute.
func (g *Group) Keep(ctx context.Context, name string, f func(context.Context)) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		pause := firstPause
		for {
			began := time.Now()
			if Do(g.log, name, func() { f(ctx) }) {
				return
			}
			if time.Since(began) > calm {
				pause = firstPause
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
			pause = min(2*pause, lastPause)
		}
	}()
}

// Wait returns when every member has ended.
func (g *Group) Wait() { g.wg.Wait() }

// Ended returns a channel that is closed when every member has ended. It is for callers that wait for something else as
// well. Call it only when no further member begins.
func (g *Group) Ended() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.wg.Wait()
	}()
	return ended
}
