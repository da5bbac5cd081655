package app

import (
	"sync"

	"go.uber.org/fx/fxevent"
)

// eventLog notes what Fx tells of the constructors of a graph. It logs nothing: "capture graph" shows how the parts of
// a build depend on each other, the hooks log the starts and stops with the names of the modules, and the caller who
// builds, starts or stops the graph gets each error and reports it once.
type eventLog struct {
	mu sync.Mutex
	// provided holds the names of the types that the constructors of the graph provide. It is complete once the graph
	// is built.
	provided map[string]bool
	// refused is set when Fx refused a constructor. Then provided is incomplete.
	refused bool
}

func newEventLog() *eventLog { return &eventLog{provided: map[string]bool{}} }

func (l *eventLog) logger() fxevent.Logger { return l }

// LogEvent implements fxevent.Logger.
func (l *eventLog) LogEvent(event fxevent.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch event := event.(type) {
	case *fxevent.Provided:
		l.refused = l.refused || event.Err != nil
		for _, name := range event.OutputTypeNames {
			l.provided[name] = true
		}
	case *fxevent.Supplied:
		l.refused = l.refused || event.Err != nil
		l.provided[event.TypeName] = true
	}
}
