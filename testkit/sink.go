package testkit

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/opencapture/capture/modules/events"
)

// Sink is an events.Sink that keeps events in memory and fails as the test says. It is safe for concurrent use.
type Sink struct {
	mu     sync.Mutex
	kept   []events.Event
	script []func(*events.Event)
	hold   chan struct{}
	held   int
}

var _ events.Sink = (*Sink)(nil)

// NewSink returns a sink that accepts every event.
func NewSink() *Sink { return &Sink{} }

// Next scripts the next Writes, one function each. The sink calls the function for every pending event and accepts the
// events that the function leaves pending. After the script the sink accepts every event again.
func (s *Sink) Next(judges ...func(*events.Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, judges...)
}

// FailNext makes the next n Writes fail every event, like a broker that is away.
func (s *Sink) FailNext(n int) {
	for range n {
		s.Next(func(event *events.Event) {
			event.Fail(events.ReasonUnavailable, events.Errorf(events.Unavailable, "the test says so"))
		})
	}
}

// Hold makes every Write wait until the returned function is called. If the context of a Write ends before, its events
// fail.
func (s *Sink) Hold() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hold := make(chan struct{})
	s.hold = hold
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hold = nil
		close(hold)
	})
}

// Held returns the number of Writes that wait because of Hold.
func (s *Sink) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// Events returns the accepted events, in order.
func (s *Sink) Events() []events.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept)
}

// Write implements events.Sink.
func (s *Sink) Write(ctx context.Context, batch *events.Batch) {
	s.mu.Lock()
	hold := s.hold
	if hold != nil {
		s.held++
	}
	s.mu.Unlock()
	if hold != nil {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.held--
		}()
		select {
		case <-hold:
		case <-ctx.Done():
			batch.FailPending(events.ReasonTimeout,
				events.Errorf(events.Unavailable, "the sink is held: %w", context.Cause(ctx)))
			return
		}
	}
	s.accept(batch)
}

func (s *Sink) accept(batch *events.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var judge func(*events.Event)
	if len(s.script) > 0 {
		judge, s.script = s.script[0], s.script[1:]
	}
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		if judge != nil {
			judge(event)
		}
		if event.Accept(); event.Outcome.State == events.StateAccepted {
			s.kept = append(s.kept, copyOf(event))
		}
	}
}

// copyOf returns a copy that shares no memory with the request.
func copyOf(event *events.Event) events.Event {
	kept := *event
	raw, routing := &kept.Raw, &kept.Routing
	texts := []*string{&kept.Name, &kept.DistinctID, &kept.ClientIP, &kept.SessionID, &routing.DLQ, &routing.Topic}
	values := []*[]byte{
		&kept.Heatmap, &raw.Token, &raw.DistinctID, &raw.Timestamp, &raw.Offset, &raw.Properties,
		&raw.Set, &raw.SetOnce,
	}
	if event.Recording != nil {
		recording := *event.Recording
		recording.Items = slices.Clone(recording.Items)
		kept.Recording = &recording
		texts = append(texts, &recording.Source, &recording.Lib)
		values = append(values, &recording.WindowID, &recording.Host)
		for i := range recording.Items {
			values = append(values, &recording.Items[i].JSON, &recording.Items[i].Timestamp)
		}
	}
	for _, text := range texts {
		*text = strings.Clone(*text)
	}
	for _, value := range values {
		*value = bytes.Clone(*value)
	}
	return kept
}
