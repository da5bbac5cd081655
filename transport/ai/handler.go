package ai

import (
	"context"
	"encoding/json"
	"net/http"
	"unicode/utf8"

	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

// Handler answers the requests of the path. It is safe for concurrent use.
type Handler struct {
	config    *configs.Value[Config]
	protocol  *configs.Value[posthog.Config]
	decoder   *decode.Decoder
	budget    *memory.Budget
	processor events.Processor
	repaired  tally.Counter
}

// NewHandler returns a handler that follows changes of its section and of transport.posthog. The memory that the
// handler takes beside the decoder's counts against the budget.
func NewHandler(
	live *configs.Live, decoder *decode.Decoder, budget *memory.Budget, processor events.Processor, scope tally.Scope,
) (*Handler, error) {
	config, err := configs.Current[Config](live)
	if err != nil {
		return nil, err
	}
	protocol, err := configs.Current[posthog.Config](live)
	if err != nil {
		return nil, err
	}
	return &Handler{
		config: config, protocol: protocol, decoder: decoder, budget: budget, processor: processor,
		repaired: scope.Counter("json_repaired_total"),
	}, nil
}

// Routes returns the route of the path.
func (h *Handler) Routes() []route.Route {
	return []route.Route{{
		Group: route.AI, Path: "/i/v0/ai", Methods: []string{http.MethodPost}, MaxBody: h.maxBody,
		Token: posthog.BearerToken, Handle: h.Capture,
	}}
}

// maxBody returns the largest body on the wire, in bytes.
func (h *Handler) maxBody(config *configs.View) int64 { return h.config.In(config).maxBody() }

// Capture takes the event of a request. It answers once the event is safe, or says what is wrong.
func (h *Handler) Capture(ctx context.Context, request *route.Request) route.Response {
	config, protocol := h.config.In(request.Config), h.protocol.In(request.Config)
	token, fault := posthog.BearerToken(request)
	if fault != nil {
		return route.Refusal(fault)
	}
	boundary, fault := decode.FormBoundary(request.ContentType)
	if fault != nil {
		return route.Refusal(fault)
	}
	payload, err := h.decoder.Inflate(decode.Input{
		Body: request.Body, ContentEncoding: request.ContentEncoding, Config: request.Config,
	})
	if err != nil {
		return route.Refusal(err)
	}
	defer payload.Release()
	parts, fault := decode.SplitForm(payload.Bytes, boundary)
	if fault == nil {
		fault = config.checkSize(parts)
	}
	if fault != nil {
		return route.Refusal(fault)
	}
	var texts texts
	defer texts.release()
	if err := texts.read(h.decoder, parts, request.Config); err != nil {
		return route.Refusal(err)
	}
	form, fault := newForm(texts.parts)
	if fault != nil {
		return route.Refusal(fault)
	}
	lease := h.budget.Lease()
	if fault := lease.Take((copies - 1) * int64(len(form.event)+len(form.properties))); fault != nil {
		return route.Refusal(fault)
	}
	defer lease.Release()

	batch := events.Batch{Token: token, Events: make([]events.Event, 1), Repaired: texts.repaired()}
	request.Describe(&batch)
	found, fault := h.read(form, &batch, &lease)
	if fault != nil {
		return route.Refusal(fault)
	}
	event := &batch.Events[0]
	reason, fault := found.hydrate(event, &batch)
	if fault == nil {
		reason, fault = events.ReasonTooLarge, protocol.CheckAI(event.Raw.Properties)
	}
	if fault != nil {
		event.Reject(reason, fault)
	}
	if err := request.Admit(ctx, &batch); err != nil {
		h.processor.Process(ctx, &batch)
		return route.Refusal(err)
	}
	h.processor.Process(ctx, &batch)
	return answer(&batch, parts).About(&batch)
}

// checkSize returns an error if the parts are larger than the section allows.
func (c Config) checkSize(parts []decode.Part) *events.Error {
	sum := 0
	for i := range parts {
		sum += len(parts[i].Data)
	}
	if limit := int(c.MaxSumOfParts); sum > limit {
		return events.Errorf(events.TooLarge, "maximum event size exceeded: the parts have %d bytes, the limit is %d",
			sum, limit)
	}
	return nil
}

// read finds the event's fields. If that fails, or the form is not UTF-8, it mends what real SDKs get wrong and tries
// again. The mended form counts against the lease.
func (h *Handler) read(f form, batch *events.Batch, lease *memory.Lease) (fields, *events.Error) {
	var found fields
	fault := errText
	if utf8.Valid(f.event) && utf8.Valid(f.properties) {
		if fault = found.read(f); fault == nil {
			return found, nil
		}
	}
	for _, text := range []*[]byte{&f.event, &f.properties} {
		done, size := jsonscan.Survey(*text)
		if !done.Any() {
			continue
		}
		if fault := lease.Take(copies * int64(size)); fault != nil {
			return found, fault
		}
		*text, _ = jsonscan.Repair(*text)
		batch.Repaired = true
	}
	found = fields{}
	if !batch.Repaired || found.read(f) != nil {
		batch.Repaired = false
		return found, fault
	}
	h.repaired.Inc(1)
	return found, nil
}

// copies is how many times the text of a form may be held beside the body: with what is mended, without what only the
// gateway may set, and with objects in the place of empty arrays.
const copies = 3

// acceptedPart describes a part in the answer.
type acceptedPart struct {
	Name            string  `json:"name"`
	Length          int     `json:"length"`
	ContentType     *string `json:"content-type"`
	ContentEncoding string  `json:"content-encoding,omitempty"`
}

// answer renders the outcome of the event, and of the events that stages have added to the batch.
func answer(batch *events.Batch, parts []decode.Part) route.Response {
	switch sum := batch.Summary(); {
	case sum.Failed > 0:
		return route.Failed(sum.Failure)
	case sum.Rejected > 0:
		return route.ToRejection(sum.Rejection).Refused()
	}
	accepted := struct {
		Parts []acceptedPart `json:"accepted_parts"`
	}{make([]acceptedPart, len(parts))}
	for i := range parts {
		accepted.Parts[i] = acceptedPart{
			Name: parts[i].Name, Length: len(parts[i].Data), ContentEncoding: parts[i].ContentEncoding,
		}
		if parts[i].ContentType != "" {
			accepted.Parts[i].ContentType = &parts[i].ContentType
		}
	}
	body, err := json.Marshal(accepted)
	if err != nil {
		return route.Refusal(err)
	}
	return route.Response{Status: http.StatusOK, ContentType: route.TypeJSON, Body: string(body)}
}
