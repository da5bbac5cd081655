package posthog

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/route"
)

// Handler answers the requests of the protocol v0. It is safe for concurrent use.
type Handler struct {
	config    *configs.Value[Config]
	decoder   *decode.Decoder
	processor events.Processor
	metrics   Metrics
	sessions  sync.Pool
}

// NewHandler returns a handler that follows changes of the section. The bytes that the decoder and the handler make of
// a request count against the budget.
func NewHandler(
	live *configs.Live, decoder *decode.Decoder, budget *memory.Budget, processor events.Processor, scope tally.Scope,
) (*Handler, error) {
	config, err := configs.Current[Config](live)
	if err != nil {
		return nil, err
	}
	spaces, buffers := newSpaces(budget), memory.NewBuffers(budget)
	return &Handler{
		config:    config,
		decoder:   decoder,
		processor: processor,
		metrics:   NewMetrics(scope),
		sessions:  sync.Pool{New: func() any { return newSession(spaces, buffers) }},
	}, nil
}

// Routes returns the paths of v0.
func (h *Handler) Routes() []route.Route {
	var routes []route.Route
	methods := []string{http.MethodGet, http.MethodPost}
	for _, path := range []string{"/e", "/i/v0/e", "/batch", "/capture", "/track", "/engage"} {
		routes = append(routes, route.Route{Group: route.Analytics, Path: path, Methods: methods, Handle: h.Capture})
	}
	return append(routes,
		route.Route{Group: route.Analytics, Path: "/test/black_hole", Methods: methods, Handle: h.BlackHole},
		route.Route{Group: route.AI, Path: "/i/v0/ai/batch", Methods: methods, Handle: h.CaptureAI},
		route.Route{Group: route.Recordings, Path: "/s", Methods: methods, MaxBody: h.maxRecording, Handle: h.Record},
	)
}

// maxRecording returns the largest body of a recording, in bytes.
func (h *Handler) maxRecording(config *configs.View) int64 {
	return int64(h.config.In(config).MaxRecording)
}

// session is the memory of one request, which the next one uses again.
type session struct {
	// config is the configuration that judges the request.
	config   Config
	document document
	batch    events.Batch
	// lease is for the request's copies of its text. many is for the rooms of its events and snapshots.
	lease, many memory.Lease
	spaces      *spaces
	// room and steps are the memory to which the document, the batch and the events of recordings refer. steps is nil
	// as long as the request has no snapshot.
	room  *eventRoom
	steps *stepRoom
}

// spaces has the rooms of all sessions.
type spaces struct {
	budget *memory.Budget
	rooms  *memory.Rooms[eventRoom]
	steps  *memory.Rooms[stepRoom]
}

func newSpaces(budget *memory.Budget) *spaces {
	return &spaces{
		budget: budget,
		rooms: memory.NewRooms(func(n int) *eventRoom {
			return &eventRoom{objects: make([]object, 0, n), events: make([]events.Event, 0, n)}
		}),
		steps: memory.NewRooms(func(n int) *stepRoom {
			return &stepRoom{found: make([]snapshot, 0, n), snapshots: make([]events.Snapshot, 0, n)}
		}),
	}
}

// eventRoom is room for events. The lists for recordings are made when they are needed.
type eventRoom struct {
	objects    []object
	replays    []replay
	events     []events.Event
	recordings []events.Recording
}

// stepRoom is room for the snapshots of recordings.
type stepRoom struct {
	found     []snapshot
	snapshots []events.Snapshot
}

const (
	// eventSize, recordingSize and snapshotSize are the memory in bytes that an event, a recorded event beside that,
	// and a snapshot take beside their text.
	eventSize     = int64(unsafe.Sizeof(object{}) + unsafe.Sizeof(events.Event{}))
	recordingSize = int64(unsafe.Sizeof(replay{}) + unsafe.Sizeof(events.Recording{}))
	snapshotSize  = int64(unsafe.Sizeof(snapshot{}) + unsafe.Sizeof(events.Snapshot{}))
)

func newSession(spaces *spaces, buffers *memory.Buffers) *session {
	s := &session{lease: spaces.budget.Lease(), many: spaces.budget.Lease(), spaces: spaces}
	s.document.moreEvents, s.document.moreSnapshots = s.roomForEvents, s.roomForSnapshots
	s.document.arena.buffers, s.document.arena.lease = buffers, &s.lease
	return s
}

// sizeOf returns how many bytes rooms for so many events and snapshots take.
func (s *session) sizeOf(events, snapshots int) int64 {
	size := int64(events)*eventSize + int64(snapshots)*snapshotSize
	if s.document.recordings {
		size += int64(events) * recordingSize
	}
	return size
}

// roomForEvents makes room for n events in all. While it copies the events found so far, it holds two rooms.
func (s *session) roomForEvents(n int) *events.Error {
	d := &s.document
	n = memory.RoomFor(n)
	if err := s.many.RaiseBeside(s.sizeOf(cap(d.objects)+n, cap(d.snapshots))); err != nil {
		return err
	}
	room := s.spaces.rooms.Get(n)
	if d.recordings {
		room.replays = slices.Grow(room.replays[:0], n+1) // one more for an envelope
	}
	room.objects, room.replays = append(room.objects[:0], d.objects...), append(room.replays[:0], d.replays...)
	s.releaseRoom()
	s.room, d.objects, d.replays = room, room.objects, room.replays
	s.many.Lower(s.sizeOf(n, cap(d.snapshots)))
	return nil
}

// roomForSnapshots makes room for n snapshots in all, like roomForEvents.
func (s *session) roomForSnapshots(n int) *events.Error {
	d := &s.document
	n = memory.RoomFor(n)
	if err := s.many.RaiseBeside(s.sizeOf(cap(d.objects), cap(d.snapshots)+n)); err != nil {
		return err
	}
	room := s.spaces.steps.Get(n)
	room.found = append(room.found[:0], d.snapshots...)
	s.releaseSteps()
	s.steps, d.snapshots = room, room.found
	s.many.Lower(s.sizeOf(cap(d.objects), n))
	return nil
}

// releaseRoom gives the room of the events back. What is left in it keeps no request's memory alive.
func (s *session) releaseRoom() {
	if s.room == nil {
		return
	}
	clear(s.room.events)
	clear(s.room.recordings)
	s.room.events, s.room.recordings = s.room.events[:0], s.room.recordings[:0]
	if cap(s.room.objects) > memory.FirstRoom {
		// The next request may be none of recordings, and reserve nothing for these lists.
		s.room.replays, s.room.recordings = nil, nil
	}
	s.spaces.rooms.Put(s.room, cap(s.room.objects))
	s.room = nil
}

// releaseSteps gives the room of the snapshots back, like releaseRoom.
func (s *session) releaseSteps() {
	if s.steps == nil {
		return
	}
	clear(s.steps.snapshots)
	s.steps.snapshots = s.steps.snapshots[:0]
	s.spaces.steps.Put(s.steps, cap(s.steps.found))
	s.steps = nil
}

func (h *Handler) release(s *session) {
	clear(s.batch.Events) // A stage may have given the batch a list of its own.
	s.batch = events.Batch{}
	s.releaseRoom()
	s.releaseSteps()
	s.document.objects, s.document.replays, s.document.snapshots = nil, nil, nil
	s.document.arena.reset()
	s.document.Scanner = jsonscan.Scanner{}
	s.lease.Release()
	s.many.Release()
	h.sessions.Put(s)
}

// Capture takes the events of a request. It answers once they are safe, or says what is wrong.
func (h *Handler) Capture(ctx context.Context, request *route.Request) route.Response {
	return h.take(ctx, request, func(s *session, query query) (events.Reason, *events.Error) {
		from := intake{request: request, query: query, engage: isEngage(request.Path)}
		return s.document.hydrate(&s.batch, &s.config, from)
	}, false)
}

// CaptureAI is Capture for a path that takes only AI events.
func (h *Handler) CaptureAI(ctx context.Context, request *route.Request) route.Response {
	return h.take(ctx, request, func(s *session, query query) (events.Reason, *events.Error) {
		return s.document.hydrate(&s.batch, &s.config, intake{request: request, query: query, aiOnly: true})
	}, false)
}

// Record takes a part of a session's recording.
func (h *Handler) Record(ctx context.Context, request *route.Request) route.Response {
	return h.take(ctx, request, func(s *session, query query) (events.Reason, *events.Error) {
		return s.document.hydrateRecordings(s, request, query)
	}, true)
}

// BlackHole does all that Capture does, but drops the events. It answers 200 to every request.
func (h *Handler) BlackHole(ctx context.Context, request *route.Request) route.Response {
	h.take(ctx, request, func(s *session, query query) (events.Reason, *events.Error) {
		reason, fault := s.document.hydrate(&s.batch, &s.config, intake{request: request, query: query})
		if fault == nil {
			dropAll(&s.batch, events.ReasonBlackHole)
		}
		return reason, fault
	}, false)
	return success(false)
}

// take decodes and scans a request, has hydrate make a batch of the objects found, and answers with the batch's
// outcomes. recordings says that the request may hold parts of recordings.
func (h *Handler) take(
	ctx context.Context, request *route.Request, hydrate func(*session, query) (events.Reason, *events.Error),
	recordings bool,
) route.Response {
	query, fault := parseQuery(request.RawQuery)
	if fault != nil {
		return route.Refusal(fault)
	}
	begin := time.Now()
	payload, err := h.decoder.Decode(decode.Input{
		Body:            request.Body,
		QueryData:       query.data,
		QueryHint:       query.compression,
		ContentType:     request.ContentType,
		ContentEncoding: request.ContentEncoding,
		Config:          request.Config,
	})
	if err != nil {
		return route.Refusal(err)
	}
	defer payload.Release()
	decoded := time.Now()
	h.metrics.Decode.Record(decoded.Sub(begin))

	s := h.sessions.Get().(*session)
	defer h.release(s)
	s.config = h.config.In(request.Config)
	s.document.limit, s.document.recordings = s.config.MaxEvents, recordings
	batch := &s.batch
	request.Describe(batch)
	if err := h.scan(s, payload); err != nil {
		return route.Refusal(err)
	}
	batch.Events = s.room.events
	reason, fault := hydrate(s, query)
	s.room.events = batch.Events
	scanned := time.Now()
	h.metrics.Scan.Record(scanned.Sub(decoded))

	switch {
	case fault != nil:
		RejectAll(batch, reason, fault)
	case s.config.BatchPolicy == PolicyAllOrNothing:
		if first := batch.Summary().Rejection; first != nil {
			RejectAll(batch, events.ReasonBatchRefused, first.Outcome.Err)
		}
	}
	var refused error
	if fault == nil {
		refused = request.Admit(ctx, batch)
	}
	h.processor.Process(ctx, batch)
	h.metrics.Process.Record(time.Since(scanned))
	switch {
	case fault != nil:
		return route.Refusal(fault)
	case refused != nil:
		return route.Refusal(refused)
	}
	return answer(batch, s.config.BatchPolicy, query.beacon).About(batch)
}

// scan finds the request's events.
func (h *Handler) scan(s *session, payload *decode.Payload) *events.Error {
	fault, err := h.metrics.Read(
		payload, s.document.scan, &s.document.Scanner, &s.document.envelope.batch, &s.batch, &s.lease)
	switch {
	case err != nil:
		return err
	case fault == nil:
		return nil
	case s.document.refused != nil:
		return s.document.refused
	case payload.Malformed != nil:
		return payload.Malformed
	default:
		return events.Errorf(events.Invalid, "failed to parse request: %w", fault)
	}
}

// isEngage reports whether the path takes events without a name.
func isEngage(path string) bool { return len(path) >= 7 && path[:7] == "/engage" }

// isBatch reports whether the path is one to which SDKs send batches only.
func isBatch(path string) bool { return strings.HasSuffix(strings.TrimRight(path, "/"), "/batch") }

// RejectAll rejects all events of a batch that have no outcome yet.
func RejectAll(batch *events.Batch, reason events.Reason, err error) {
	for i := range batch.Events {
		batch.Events[i].Reject(reason, err)
	}
}

func dropAll(batch *events.Batch, reason events.Reason) {
	for i := range batch.Events {
		batch.Events[i].Drop(reason)
	}
}
