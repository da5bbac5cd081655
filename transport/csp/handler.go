package csp

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unsafe"

	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

// Handler answers the requests of the path. It is safe for concurrent use.
type Handler struct {
	decoder   *decode.Decoder
	budget    *memory.Budget
	processor events.Processor
	repaired  tally.Counter
}

// NewHandler returns a handler. The memory that it takes beside the decoder's counts against the budget.
func NewHandler(
	decoder *decode.Decoder, budget *memory.Budget, processor events.Processor, scope tally.Scope,
) *Handler {
	return &Handler{
		decoder: decoder, budget: budget, processor: processor, repaired: scope.Counter("json_repaired_total"),
	}
}

// Routes returns the route of the path.
func (h *Handler) Routes() []route.Route {
	return []route.Route{{
		Group: route.Reports, Path: "/report", Methods: []string{http.MethodPost}, MaxBody: route.Fixed(maxBody),
		Token:  token,
		Handle: h.Capture,
	}}
}

// query returns the parameters of the query, without those that cannot be read.
func query(request *route.Request) url.Values {
	values, _ := url.ParseQuery(request.RawQuery)
	return values
}

// token returns the project's token.
func token(request *route.Request) (string, *events.Error) {
	if found := posthog.QueryToken(request); found != "" {
		return posthog.Token(found)
	}
	return "", errNoToken
}

var errNoToken = events.Errorf(events.Unauthorized, "API key is missing: add ?token= to the address of reports")

// sender is what the query and the head of a request say of all its reports. The values are JSON.
type sender struct {
	distinctID, sessionID, version, userAgent []byte
	// rate is the part of the violations to keep, from 0 to 1.
	rate float64
}

const (
	// maxID and maxUserAgent are the largest ids, versions and user agents in bytes. Every event of the request repeats
	// them.
	maxID        = 1000
	maxUserAgent = 4000
)

func newSender(request *route.Request, query url.Values) *sender {
	or := func(name string, makeUp func() string) []byte {
		if text := cut(query.Get(name), maxID); strings.TrimSpace(text) != "" {
			return quote(text)
		}
		return quote(makeUp())
	}
	id := func() string { return posthog.NewUUID(request.Received).String() }
	s := &sender{
		distinctID: or("distinct_id", id), sessionID: or("session_id", id),
		version: or("v", func() string { return "unknown" }), userAgent: null, rate: 1,
	}
	if agent := cut(request.Get("User-Agent"), maxUserAgent); agent != "" {
		s.userAgent = quote(agent)
	}
	if rate, err := strconv.ParseFloat(query.Get("sample_rate"), 64); err == nil && !math.IsNaN(rate) {
		s.rate = min(max(rate, 0), 1)
	}
	return s
}

// cut returns the beginning of a text, of at most limit bytes.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "")
}

// eventSize is the memory in bytes that an event and its report take beside their text.
const eventSize = int64(unsafe.Sizeof(events.Event{}) + 2*unsafe.Sizeof(report{}) + 24*unsafe.Sizeof(member{}))

// Capture takes the reports of a request. It answers once their events are safe, or says what is wrong.
func (h *Handler) Capture(ctx context.Context, request *route.Request) route.Response {
	token, fault := token(request)
	if fault != nil {
		return route.Refusal(fault)
	}
	payload, err := h.decoder.Decode(decode.Input{
		Body: request.Body, ContentType: request.ContentType, ContentEncoding: request.ContentEncoding,
		Config: request.Config,
	})
	if err != nil {
		return route.Refusal(err)
	}
	defer payload.Release()
	lease := h.budget.Lease()
	defer lease.Release()
	batch := events.Batch{Token: token, Repaired: payload.Replaced > 0}
	request.Describe(&batch)
	reports, fault := h.read(payload, &batch, &lease)
	if fault != nil {
		return route.Refusal(fault)
	}
	if len(reports) == 0 {
		return route.Response{Status: http.StatusNoContent}
	}
	from := newSender(request, query(request))
	batch.Events = make([]events.Event, len(reports))
	for i := range reports {
		event := &batch.Events[i]
		if fault := reports[i].fill(event, from, batch.Received, &lease); fault != nil {
			if fault.Code == events.Unavailable {
				return route.Refusal(fault)
			}
			event.Reject(events.ReasonInvalidEvent, fault)
		}
	}
	if err := request.Admit(ctx, &batch); err != nil {
		h.processor.Process(ctx, &batch)
		return route.Refusal(err)
	}
	h.processor.Process(ctx, &batch)
	return answer(&batch).About(&batch)
}

// read finds the reports. If that fails, or if the text is not UTF-8, it mends what a cut of a text or a careless
// polyfill does to JSON, and tries again. It reserves the memory of the events to come.
func (h *Handler) read(payload *decode.Payload, batch *events.Batch, lease *memory.Lease) ([]report, *events.Error) {
	text := payload.Bytes
	reports, fault := readReports(text)
	if fault == nil && payload.Malformed != nil {
		// The scan does not look at the bytes of a string.
		fault = payload.Malformed
	}
	if fault != nil && fault.Code == events.Invalid {
		if done, size := jsonscan.Survey(text); done.Any() {
			if spent := lease.Take(int64(size)); spent != nil {
				return nil, spent
			}
			mended, _ := jsonscan.Repair(text)
			if again, still := readReports(mended); still == nil {
				reports, fault, batch.Repaired = again, nil, true
				h.repaired.Inc(1)
			}
		}
	}
	if fault != nil {
		return nil, fault
	}
	return reports, lease.Take(int64(len(reports)) * eventSize)
}

// answer renders the outcome of a request. One good report is enough for a success: who sends the others again would
// send it twice.
func answer(batch *events.Batch) route.Response {
	switch sum := batch.Summary(); {
	case sum.Failed > 0:
		return route.Failed(sum.Failure)
	case sum.Rejected == len(batch.Events):
		return route.ToRejection(sum.Rejection).Refused()
	}
	return route.Response{Status: http.StatusNoContent}
}
