package app

import (
	"sync"

	"go.uber.org/fx/fxevent"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// eventLog is Fx's event logger. The zap logger is itself a part of the graph, so eventLog keeps the events until the
// logger exists. When the graph cannot be built, the kept events are dropped, because the error explains the failure
// better.
type eventLog struct {
	mu   sync.Mutex
	kept []fxevent.Event
	next fxevent.Logger
	// provided holds the names of the types that the constructors of the graph provide. It is complete once the graph
	// is built.
	provided map[string]bool
	// refused is set when Fx refused a constructor. Then provided is incomplete.
	refused bool
}

func newEventLog() *eventLog { return &eventLog{provided: map[string]bool{}} }

func (l *eventLog) logger() fxevent.Logger { return l }

// LogEvent implements fxevent.Logger. It leaves out the events of hooks: Fx sees only the app's wrapper of a hook (see
// hooks), and the wrapper logs the same with the module's name.
func (l *eventLog) LogEvent(event fxevent.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch event := event.(type) {
	case *fxevent.OnStartExecuting, *fxevent.OnStartExecuted, *fxevent.OnStopExecuting, *fxevent.OnStopExecuted:
		return
	case *fxevent.Provided:
		l.refused = l.refused || event.Err != nil
		for _, name := range event.OutputTypeNames {
			l.provided[name] = true
		}
	case *fxevent.Supplied:
		l.refused = l.refused || event.Err != nil
		l.provided[event.TypeName] = true
	}
	if l.next == nil {
		l.kept = append(l.kept, event)
		return
	}
	l.next.LogEvent(event)
}

// connect sends the kept events and all later ones to the logger at level debug. Errors are logged at debug as well:
// the caller who builds, starts or stops the graph gets each error and reports it once.
func (l *eventLog) connect(log *zap.Logger) {
	next := &fxevent.ZapLogger{Logger: log.Named("fx")}
	next.UseLogLevel(zapcore.DebugLevel)
	next.UseErrorLevel(zapcore.DebugLevel)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, event := range l.kept {
		next.LogEvent(event)
	}
	l.kept, l.next = nil, next
}
