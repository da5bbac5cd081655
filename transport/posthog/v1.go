package posthog

import (
	"context"
	"net/http"
	"time"
	"unsafe"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/route"
)

// The v1 protocol is strict where v0 is lenient: a request says in its headers who sends what and when, every event has
// a UUID of the client's, and the answer has a result for each. What concerns the whole request refuses it, before
// anything is kept; everything else is one event's own.

func (h *Handler) v1Routes() []route.Route {
	serve := func(group route.Group, path string, handle func(context.Context, *route.Request) route.Response) route.Route {
		return route.Route{Group: group, Path: path, Methods: []string{http.MethodPost}, Handle: handle, Refuse: h.RefuseV1}
	}
	return []route.Route{
		serve(route.Analytics, "/i/v1/analytics/events", h.CaptureV1),
		serve(route.AI, "/i/v1/ai/events", h.CaptureV1AI),
	}
}

// v1Session is the memory that one request needs and the next one uses again.
type v1Session struct {
	v1Document
	batch events.Batch
	ids   []uuid.UUID
	// places are the events' places in the batch after it was processed, plus one; 0 is none.
	places []int32
	// properties holds those of the events that have been given more than the client sent.
	properties []byte
	claim      claim
}

const (
	// maxPooledProperties is how much memory for properties is kept for the next request.
	maxPooledProperties = 1 << 20
	// resultSize is what the answer takes for an event.
	resultSize = 128
	// v1EventSize is what an event takes beside its text and its result.
	v1EventSize = int64(unsafe.Sizeof(v1Object{}) + unsafe.Sizeof(events.Event{}) + unsafe.Sizeof(uuid.UUID{}) + unsafe.Sizeof(int32(0)))
)

func newV1Session(limit int, budget *decode.Budget) *v1Session {
	s := &v1Session{claim: claim{budget: budget}}
	s.limit, s.room = limit, s.reserveEvents
	return s
}

// reserveEvents reserves memory for so many events in all.
func (s *v1Session) reserveEvents(events int) bool {
	return events <= maxPooled || s.claim.reserveMany(int64(events)*v1EventSize)
}

func (h *Handler) releaseV1(s *v1Session) {
	s.claim.release()
	if cap(s.batch.Events) > maxPooled || cap(s.objects) > maxPooled || cap(s.properties) > maxPooledProperties {
		return
	}
	clear(s.batch.Events)
	s.batch = events.Batch{Events: s.batch.Events[:0]}
	s.scanner = scanner{}
	h.v1.Put(s)
}

// CaptureV1 takes a batch of events of any kind and answers with what became of each.
func (h *Handler) CaptureV1(ctx context.Context, request *route.Request) route.Response {
	return h.captureV1(ctx, request, false)
}

// CaptureV1AI is CaptureV1 for a batch of AI events; it drops others.
func (h *Handler) CaptureV1AI(ctx context.Context, request *route.Request) route.Response {
	return h.captureV1(ctx, request, true)
}

// RefuseV1 answers a request whose body could not be read. What is wrong with its headers comes first.
func (h *Handler) RefuseV1(request *route.Request, err error) route.Response {
	if _, fault := readV1Header(request); fault != nil {
		return refuseV1(request, fault)
	}
	return refuseV1(request, err)
}

func (h *Handler) captureV1(ctx context.Context, request *route.Request, onlyAI bool) route.Response {
	header, fault := readV1Header(request)
	if fault != nil {
		return refuseV1(request, fault)
	}
	if len(request.Body) == 0 {
		return refuseV1(request, errV1NoBody)
	}
	begin := time.Now()
	payload, err := h.decoder.Decode(decode.Input{Body: request.Body, ContentEncoding: request.ContentEncoding})
	if err != nil {
		return refuseV1(request, err)
	}
	defer payload.Release()
	decoded := time.Now()
	h.metrics.decode.Record(decoded.Sub(begin))

	s := h.v1.Get().(*v1Session)
	defer h.releaseV1(s)
	if err := h.scanV1(s, payload, &header); err != nil {
		return refuseV1(request, err)
	}
	batch := &s.batch
	batch.Token, batch.SentAt = header.token, header.sentAt
	batch.Received, batch.ClientIP, batch.RequestID = request.Received, request.ClientIP, request.RequestID
	fault = s.hydrate(&h.config, &header, onlyAI)
	if fault != nil {
		rejectAll(batch, fault.reason, fault)
	}
	scanned := time.Now()
	h.metrics.scan.Record(scanned.Sub(decoded))
	h.processor.Process(ctx, batch)
	h.metrics.process.Record(time.Since(scanned))
	if fault != nil {
		return refuseV1(request, fault)
	}
	return s.answer(request).About(batch)
}

// scanV1 finds the request's events and reserves what will be written for them.
func (h *Handler) scanV1(s *v1Session, payload *decode.Payload, header *v1Header) error {
	fault, err := h.mend(payload, s.scan, &s.scanner, &s.batch, &s.claim)
	switch {
	case err != nil:
		return err
	case fault == nil:
		if !s.claim.reserve(s.maxProperties(header) + int64(len(s.objects))*resultSize) {
			return decode.ErrSpent
		}
		return nil
	case s.spent:
		return decode.ErrSpent
	case s.full:
		return events.Errorf(events.TooLarge, "the request holds more than %d events", s.limit)
	default:
		return v1Errorf(events.Invalid, "request_parsing_error", events.ReasonInvalidEvent, "failed to parse request: %w", fault)
	}
}
