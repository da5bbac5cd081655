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
	return &Handler{
		config:    config,
		decoder:   decoder,
		processor: processor,
		metrics:   posthog.NewMetrics(scope),
		sessions:  sync.Pool{New: func() any { return newSession(budget) }},
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
	ids    []uuid.UUID
	// places are the places of the request's events in the batch after it was processed, plus one; 0 is none.
	places []int32
	// properties holds the events' properties with what the service has written into them.
	properties []byte
	// lease is for the request's memory, and many for that of its events where they are many.
	lease, many memory.Lease
}

const (
	// maxPooled is how many events a session may have room for and still be kept. So much memory does not count against
	// the budget.
	maxPooled = 4096
	// maxPooledProperties is how much memory for properties a session may have and still be kept, in bytes.
	maxPooledProperties = 1 << 20
	// resultSize is the memory in bytes that an event takes in the answer.
	resultSize = 128
	// eventSize is the memory in bytes that an event takes beside its text and its result.
	eventSize = int64(unsafe.Sizeof(object{}) + unsafe.Sizeof(events.Event{}) + unsafe.Sizeof(uuid.UUID{}) +
		unsafe.Sizeof(int32(0)))
)

func newSession(budget *memory.Budget) *session {
	s := &session{lease: budget.Lease(), many: budget.Lease()}
	s.room = s.reserveEvents
	return s
}

// reserveEvents reserves memory for so many events in all.
func (s *session) reserveEvents(events int) bool {
	return events <= maxPooled || s.many.Raise(int64(events)*eventSize)
}

func (h *Handler) release(s *session) {
	s.lease.Release()
	s.many.Release()
	if cap(s.batch.Events) > maxPooled || cap(s.objects) > maxPooled || cap(s.properties) > maxPooledProperties {
		return
	}
	clear(s.batch.Events)
	s.batch = events.Batch{Events: s.batch.Events[:0]}
	s.Scanner = jsonscan.Scanner{}
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

// scan finds the request's events. It reserves the memory for what will be written for them.
func (h *Handler) scan(s *session, payload *decode.Payload, header *header) error {
	fault, err := h.metrics.Read(payload, s.scan, &s.Scanner, &s.batchAt, &s.batch, &s.lease)
	switch {
	case err != nil:
		return err
	case fault == nil:
		if !s.lease.Reserve(s.maxProperties(header) + int64(len(s.objects))*resultSize) {
			return memory.ErrSpent
		}
		return nil
	case s.spent:
		return memory.ErrSpent
	case s.full:
		return events.Errorf(events.TooLarge, "the request holds more than %d events", s.limit)
	case payload.Malformed != nil:
		return payload.Malformed
	default:
		return errorf(events.Invalid, "request_parsing_error", events.ReasonInvalidEvent,
			"failed to parse request: %w", fault)
	}
}
