package events

import "sync"

// Late tells how an event ends after all that has failed because nobody knew in time whether it is safe
// (ReasonTimeout). The sink makes it, and stages that settle ask it. It is safe for concurrent use.
//
// The sink calls Await for each report that is still to come, and once more for itself, before any of these can come.
// When all have come, the end is known.
type Late struct {
	mu      sync.Mutex
	awaited int
	lost    bool
	asked   []func(safe bool)
}

// Await says that one more Report is to come.
func (l *Late) Await() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.awaited++
}

// Report says that a part of the event is safe, or that it is not, as far as anybody will ever know. The last report
// calls those who have asked.
func (l *Late) Report(safe bool) {
	l.mu.Lock()
	l.awaited--
	l.lost = l.lost || !safe
	var asked []func(bool)
	if l.awaited == 0 {
		asked, l.asked = l.asked, nil
	}
	safe = !l.lost
	l.mu.Unlock()
	for _, tell := range asked {
		tell(safe)
	}
}

// Then calls tell once the end is known: at once, or in the goroutine of the last report. So tell must not block. safe
// says that all of the event is where the sink promised to put it.
func (l *Late) Then(tell func(safe bool)) {
	l.mu.Lock()
	known, safe := l.awaited == 0, !l.lost
	if !known {
		l.asked = append(l.asked, tell)
	}
	l.mu.Unlock()
	if known {
		tell(safe)
	}
}
