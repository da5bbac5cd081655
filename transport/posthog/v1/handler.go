package v1

import (
	"context"
	"net/http"
	"sync"
	"time"
	"unsafe"

	"github.com/google/uuid"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

// Handler answers the requests of the protocol v1. It is safe for concurrent use.
type Handler struct {
	config    *configs.Value[posthog.Config]
	decoder   *decode.Decoder
	processor events.Processor
	metrics   posthog.Metrics
	sessions  sync.Pool
}

// NewHandler returns a handler that follows changes of the section. The bytes that the decoder and the handler make of
// a request count against the budget.
func NewHandler(
	live *configs.Live, decoder *decode.Decoder, budget *memory.Budget, processor events.Processor, scope tally.Scope,
) (*Handler, error) {
	config, err := configs.Current[posthog.Config](live)
	if err != nil {
		return nil, err
	}
	spaces := newSpaces(budget)
	return &Handler{
		config:    config,
		decoder:   decoder,
		processor: processor,
		metrics:   posthog.NewMetrics(scope),
		sessions:  sync.Pool{New: func() any { return newSession(spaces) }},
	}, nil
}

// Routes returns the paths.
func (h *Handler) Routes() []route.Route {
	serve := func(
		group route.Group, path string, handle func(context.Context, *route.Request) route.Response,
	) route.Route {
		return route.Route{
			Group: group, Path: path, Methods: []string{http.MethodPost}, Token: token, Handle: handle,
			Refuse: h.Refuse,
		}
	}
	return []route.Route{
		serve(route.Analytics, "/i/v1/analytics/events", h.Capture),
		serve(route.AI, "/i/v1/ai/events", h.CaptureAI),
	}
}

// session is the memory of one request, which the next one uses again.
type session struct {
	document
	// config is the configuration that judges the request.
	config posthog.Config
	batch  events.Batch
	// properties holds the events' properties with what the service has written into them.
	properties *memory.Buffer
	// lease is for the request's copies of its text, many for the room of its events, and result for its answer, which
	// may outlive the session.
	lease, many, result memory.Lease
	spaces              *spaces
	room                *room
}

// spaces has the memory of all sessions.
type spaces struct {
	budget  *memory.Budget
	buffers *memory.Buffers
	rooms   *memory.Rooms[room]
}

// room is room for events.
type room struct {
	objects []object
	events  []events.Event
	ids     []uuid.UUID
	// places are the places of the request's events in the batch after it was processed, plus one; 0 is none.
	places []int32
}

// eventSize is the memory in bytes that an event takes beside its text and its result.
const eventSize = int64(unsafe.Sizeof(object{}) + unsafe.Sizeof(events.Event{}) + unsafe.Sizeof(uuid.UUID{}) +
	unsafe.Sizeof(int32(0)))

func newSpaces(budget *memory.Budget) *spaces {
	return &spaces{budget: budget, buffers: memory.NewBuffers(budget), rooms: memory.NewRooms(func(n int) *room {
		return &room{
			objects: make([]object, 0, n), events: make([]events.Event, 0, n), ids: make([]uuid.UUID, 0, n),
			places: make([]int32, n),
		}
	})}
}

func newSession(spaces *spaces) *session {
	s := &session{
		lease: spaces.budget.Lease(), many: spaces.budget.Lease(), result: spaces.budget.Lease(), spaces: spaces,
	}
	s.more = s.roomForEvents
	return s
}

// roomForEvents makes room for n events in all. While it copies the events found so far, it holds two rooms.
func (s *session) roomForEvents(n int) *events.Error {
	n = memory.RoomFor(n)
	if err := s.many.RaiseBeside(int64(cap(s.objects)+n) * eventSize); err != nil {
		return err
	}
	larger := s.spaces.rooms.Get(n)
	larger.objects = append(larger.objects[:0], s.objects...)
	s.releaseRoom()
	s.room, s.objects = larger, larger.objects
	s.many.Lower(int64(n) * eventSize)
	return nil
}

// releaseRoom gives the room of the events back. What is left in it keeps no request's memory alive.
func (s *session) releaseRoom() {
	if s.room == nil {
		return
	}
	clear(s.room.events)
	s.room.events = s.room.events[:0]
	s.spaces.rooms.Put(s.room, cap(s.room.objects))
	s.room = nil
}

func (h *Handler) release(s *session) {
	clear(s.batch.Events) // A stage may have given the batch a list of its own.
	s.batch = events.Batch{}
	s.releaseRoom()
	s.objects = nil
	s.spaces.buffers.Put(s.properties)
	s.properties = nil
	s.Scanner = jsonscan.Scanner{}
	s.lease.Release()
	s.many.Release()
	s.result.Release()
	h.sessions.Put(s)
}

// Capture takes a batch of events of any kind. It answers with the outcome of each.
func (h *Handler) Capture(ctx context.Context, request *route.Request) route.Response {
	return h.capture(ctx, request, false)
}

// CaptureAI is Capture for a batch of AI events. It rejects events of any other kind.
func (h *Handler) CaptureAI(ctx context.Context, request *route.Request) route.Response {
	return h.capture(ctx, request, true)
}

// Refuse answers a request that the gates refused, or whose body could not be read. A fault in the headers goes before
// that.
func (h *Handler) Refuse(request *route.Request, err error) route.Response {
	if _, fault := readHeader(request); fault != nil {
		return refuse(request, fault)
	}
	return refuse(request, err)
}

func (h *Handler) capture(ctx context.Context, request *route.Request, onlyAI bool) route.Response {
	header, fault := readHeader(request)
	if fault != nil {
		return refuse(request, fault)
	}
	if len(request.Body) == 0 {
		return refuse(request, errNoBody)
	}
	begin := time.Now()
	payload, err := h.decoder.Decode(decode.Input{
		Body: request.Body, ContentType: request.ContentType, ContentEncoding: request.ContentEncoding,
		Config: request.Config,
	})
	if err != nil {
		return refuse(request, err)
	}
	defer payload.Release()
	decoded := time.Now()
	h.metrics.Decode.Record(decoded.Sub(begin))

	s := h.sessions.Get().(*session)
	defer h.release(s)
	s.config = h.config.In(request.Config)
	s.limit = s.config.MaxEvents
	batch := &s.batch
	request.Describe(batch)
	batch.Token, batch.SentAt = header.token, header.sentAt
	if err := h.scan(s, payload, &header); err != nil {
		return refuse(request, err)
	}
	fault = s.hydrate(&header, onlyAI)
	if fault != nil {
		posthog.RejectAll(batch, fault.reason, fault)
	}
	scanned := time.Now()
	h.metrics.Scan.Record(scanned.Sub(decoded))
	var refused error
	if fault == nil {
		refused = request.Admit(ctx, batch)
	}
	h.processor.Process(ctx, batch)
	h.metrics.Process.Record(time.Since(scanned))
	switch {
	case fault != nil:
		return refuse(request, fault)
	case refused != nil:
		return refuse(request, refused)
	}
	return s.answer(request).About(batch)
}

// scan finds the request's events. It reserves the memory for what will be written for them, the answer included.
func (h *Handler) scan(s *session, payload *decode.Payload, header *header) error {
	fault, err := h.metrics.Read(payload, s.scan, &s.Scanner, &s.batchAt, &s.batch, &s.lease)
	switch {
	case err != nil:
		return err
	case fault == nil:
		return s.reserve(header)
	case s.refused != nil:
		return s.refused
	case payload.Malformed != nil:
		return payload.Malformed
	default:
		return errorf(events.Invalid, "request_parsing_error", events.ReasonInvalidEvent,
			"failed to parse request: %w", fault)
	}
}

// reserve reserves what the events take beside their room.
func (s *session) reserve(header *header) error {
	if fault := s.lease.Take(s.copies()); fault != nil {
		return fault
	}
	if fault := s.result.Take(s.maxAnswer()); fault != nil {
		return fault
	}
	var err error
	s.properties, err = s.spaces.buffers.Get(s.maxProperties(header))
	return err
}

// copies returns how many bytes the copies of texts with escapes may have.
func (s *session) copies() (size int64) {
	for i := range s.objects {
		found := &s.objects[i]
		for _, at := range [...]jsonscan.Span{found.name, found.distinctID, found.given[spliceSession]} {
			if raw := at.In(s.Data); jsonscan.IsEscaped(raw) {
				size += min(int64(len(raw)), maxCopy)
			}
		}
	}
	return size
}

// maxCopy is the longest of these texts in bytes, as JSON: a name.
const maxCopy = 2 + 6*maxName
