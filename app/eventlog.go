package app

import (
	"sync"

	"go.uber.org/fx/fxevent"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// eventLog is Fx's event logger. The graph's zap logger is itself a part of the graph, so events are kept until it exists,
// and forgotten when the graph cannot be built: the error says it better.
type eventLog struct {
	mu   sync.Mutex
	kept []fxevent.Event
	next fxevent.Logger
	// provided holds the names of the types that the graph's constructors provide. It is complete when the graph is built.
	provided map[string]bool
	// refused is set when Fx could not take what somebody provides. Then provided is not complete.
	refused bool
}

func newEventLog() *eventLog { return &eventLog{provided: map[string]bool{}} }

func (l *eventLog) logger() fxevent.Logger { return l }

// LogEvent implements fxevent.Logger. Hook events are left out: Fx sees only the app's wrapper of a hook (see hooks), which
// logs the same with the module's name.
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

// connect sends the kept events and all further ones to the logger, at debug. That goes for errors as well: whoever
// built, started or stopped the graph gets each of them, and says it once.
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
