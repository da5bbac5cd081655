package posthog

import (
	"context"
	"net/http"
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
	return &Handler{
		config:    config,
		decoder:   decoder,
		processor: processor,
		metrics:   NewMetrics(scope),
		sessions:  sync.Pool{New: func() any { return newSession(budget) }},
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
	// lease is for the request's memory, and many for that of its events and snapshots where they are many.
	lease, many memory.Lease
	// recordings and snapshots are the memory to which the events of recordings refer.
	recordings []events.Recording
	snapshots  []events.Snapshot
}

const (
	// maxPooled is how many events, and how many snapshots, a session may have room for and still be kept. So much
	// memory does not count against the budget.
	maxPooled = 4096
	// eventSize and snapshotSize are the memory in bytes that an event and a snapshot take beside their text.
	eventSize = int64(unsafe.Sizeof(object{}) + unsafe.Sizeof(replay{}) + unsafe.Sizeof(events.Event{}) +
		unsafe.Sizeof(events.Recording{}))
	snapshotSize = int64(unsafe.Sizeof(snapshot{}) + unsafe.Sizeof(events.Snapshot{}))
)

func newSession(budget *memory.Budget) *session {
	s := &session{lease: budget.Lease(), many: budget.Lease()}
	s.document.room, s.document.arena.lease = s.room, &s.lease
	return s
}

// room reserves memory for so many events and snapshots in all.
func (s *session) room(events, snapshots int) bool {
	many := int64(0)
	if events > maxPooled {
		many += int64(events) * eventSize
	}
	if snapshots > maxPooled {
		many += int64(snapshots) * snapshotSize
	}
	return s.many.Raise(many)
}

func (h *Handler) release(s *session) {
	s.lease.Release()
	s.many.Release()
	if max(cap(s.batch.Events), cap(s.document.objects), cap(s.document.snapshots), cap(s.snapshots)) > maxPooled {
		return
	}
	clear(s.batch.Events)
	clear(s.recordings)
	clear(s.snapshots)
	s.batch = events.Batch{Events: s.batch.Events[:0]}
	s.document.arena.reset()
	s.document.Scanner = jsonscan.Scanner{}
	h.sessions.Put(s)
}

// Capture takes the events of a request. It answers once they are safe, or says what is wrong.
func (h *Handler) Capture(ctx context.Context, request *route.Request) route.Response {
	return h.take(ctx, request, func(s *session, query query) (events.Reason, *events.Error) {
		from := intake{request: request, query: query, engage: isEngage(request.Path)}
		return s.document.hydrate(&s.batch, &s.config, from)
	}, resourceEvents)
}

// CaptureAI is Capture for a path that takes only AI events.
func (h *Handler) CaptureAI(ctx context.Context, request *route.Request) route.Response {
	return h.take(ctx, request, func(s *session, query query) (events.Reason, *events.Error) {
		return s.document.hydrate(&s.batch, &s.config, intake{request: request, query: query, aiOnly: true})
	}, resourceEvents)
}

// Record takes a part of a session's recording.
func (h *Handler) Record(ctx context.Context, request *route.Request) route.Response {
	return h.take(ctx, request, func(s *session, query query) (events.Reason, *events.Error) {
		return s.document.hydrateRecordings(s, request, query)
	}, resourceRecordings)
}

// BlackHole does all that Capture does, but drops the events. It answers 200 to every request.
func (h *Handler) BlackHole(ctx context.Context, request *route.Request) route.Response {
	h.take(ctx, request, func(s *session, query query) (events.Reason, *events.Error) {
		reason, fault := s.document.hydrate(&s.batch, &s.config, intake{request: request, query: query})
		if fault == nil {
			dropAll(&s.batch, events.ReasonBlackHole)
		}
		return reason, fault
	}, resourceEvents)
	return success(false)
}

// take decodes and scans a request, has hydrate make a batch of the objects found, and answers with the batch's
// outcomes.
func (h *Handler) take(
	ctx context.Context, request *route.Request, hydrate func(*session, query) (events.Reason, *events.Error),
	resource string,
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
	s.document.limit, s.document.recordings = s.config.MaxEvents, resource == resourceRecordings
	batch := &s.batch
	request.Describe(batch)
	if err := h.scan(s, payload); err != nil {
		return route.Refusal(err)
	}
	reason, fault := hydrate(s, query)
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
	return answer(batch, s.config.BatchPolicy, query.beacon, resource).About(batch)
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
	case s.document.spent:
		return memory.ErrSpent
	case s.document.full:
		return events.Errorf(events.TooLarge,
			"maximum event size exceeded: request holds more than %d events or snapshots", s.document.limit)
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
