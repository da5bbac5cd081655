package otlp

import (
	"context"
	"net/http"

	"github.com/uber-go/tally/v4"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

const (
	// minOutput is how many bytes the events of any request may come to, and maxGrowth how many more for each byte of
	// the request. The smallest log record of two bytes becomes an event of 160. A record of 60 bytes may repeat a
	// resource of 7 KB.
	minOutput = 1 << 20
	maxGrowth = 128
)

// Handler answers the requests of this package's paths. It is safe for concurrent use.
type Handler struct {
	config            *configs.Value[Config]
	protocol          *configs.Value[posthog.Config]
	decoder           *decode.Decoder
	budget            *memory.Budget
	processor         events.Processor
	ignored, repaired tally.Counter
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
		ignored: scope.Counter("spans_ignored_total"), repaired: scope.Counter("json_repaired_total"),
	}, nil
}

// Routes returns the routes of the paths.
func (h *Handler) Routes() []route.Route {
	type handle = func(context.Context, *route.Request) route.Response
	post := func(
		group route.Group, path string, maxBody func(*configs.View) int64, kind answers, handle handle,
	) route.Route {
		token := posthog.BearerToken
		if kind == logAnswers {
			token = posthog.HeadToken
		}
		return route.Route{
			Group: group, Path: path, Methods: []string{http.MethodPost}, MaxBody: maxBody, Token: token,
			Handle: handle,
			Refuse: func(request *route.Request, err error) route.Response { return kind.to(request).refusal(err) },
		}
	}
	limit := func(config *configs.View) int64 { return int64(h.config.In(config).MaxBody) }
	return []route.Route{
		post(route.AI, "/i/v0/ai/otel", limit, spanAnswers, h.Traces),
		post(route.AI, "/i/v0/ai/otel/v1/traces", limit, spanAnswers, h.Traces),
		post(route.AI, "/i/v0/ai/otel/v1/logs", limit, logAnswers, h.Logs),
		post(route.Logs, "/i/v1/logs", nil, logAnswers, h.Logs),
	}
}

var (
	spanAnswers = answers{items: "spans", list: "resourceSpans", rejected: "rejectedSpans"}
	logAnswers  = answers{items: "log records", list: "resourceLogs", rejected: "rejectedLogRecords"}
)

// to returns the answers in the encoding of the request.
func (a answers) to(request *route.Request) answers {
	a.protobuf = isProtobuf(request.ContentType)
	return a
}

// Traces takes the spans of a request that are about AI. It answers once their events are safe, or says what is wrong.
func (h *Handler) Traces(ctx context.Context, request *route.Request) route.Response {
	token, err := posthog.BearerToken(request)
	if err != nil {
		return spanAnswers.to(request).refusal(err)
	}
	var data tracepb.TracesData
	return h.take(ctx, request, spanAnswers.to(request), token, &data, func(b *batch) (int, *events.Error) {
		if ceiling := int(h.protocol.In(request.Config).MaxAIEvent); ceiling > 0 {
			b.writer.limit = ceiling
		}
		ignored, err := b.traces(&data, h.config.In(request.Config))
		h.ignored.Inc(int64(ignored))
		return ignored, err
	})
}

// Logs takes the log records of a request. It answers once their events are safe, or says what is wrong. The token may
// stand in the query, where posthog-js writes it.
func (h *Handler) Logs(ctx context.Context, request *route.Request) route.Response {
	token, err := posthog.HeadToken(request)
	if err != nil {
		return logAnswers.to(request).refusal(err)
	}
	var data logspb.LogsData
	return h.take(ctx, request, logAnswers.to(request), token, &data, func(b *batch) (int, *events.Error) {
		return 0, b.logs(&data, h.config.In(request.Config))
	})
}

// take reads a request into data, has fill make events of data, and processes these events.
func (h *Handler) take(
	ctx context.Context, r *route.Request, answers answers, token string, data proto.Message,
	fill func(*batch) (ignored int, err *events.Error),
) route.Response {
	payload, err := h.decoder.Inflate(decode.Input{Body: r.Body, ContentEncoding: r.ContentEncoding, Config: r.Config})
	if err != nil {
		return answers.refusal(err)
	}
	defer payload.Release()
	config := h.config.In(r.Config)
	limited, cancel := context.WithTimeout(ctx, config.MaxTime)
	defer cancel()
	decoded := request{lease: h.budget.Lease(), kind: answers, decoder: h.decoder, config: r.Config}
	defer decoded.lease.Release()
	if err := decoded.decode(payload.Bytes, r.ContentType, data); err != nil {
		return answers.refusal(err)
	}
	if decoded.repaired {
		h.repaired.Inc(1)
	}
	b := batch{
		Batch:   events.Batch{Token: token, Repaired: decoded.repaired},
		request: &decoded,
		writer: writer{
			lease: h.budget.Lease(),
			limit: int(h.decoder.Limit(r.Config)),
			left:  min(int(config.MaxOutput), minOutput+maxGrowth*len(payload.Bytes)),
		},
		trim: trimmer{text: int(config.MaxAttribute), all: int(config.MaxResource), lease: &decoded.lease},
		ctx:  limited,
	}
	r.Describe(&b.Batch)
	defer b.writer.lease.Release()
	ignored, fault := fill(&b)
	if fault != nil {
		return answers.refusal(fault)
	}
	if len(b.Events) == 0 {
		return answers.success(0, b.nothing(ignored))
	}
	if err := r.Admit(ctx, &b.Batch); err != nil {
		h.processor.Process(ctx, &b.Batch)
		return answers.refusal(err)
	}
	h.processor.Process(ctx, &b.Batch)
	return answers.batch(&b.Batch, b.trim.note()).About(&b.Batch)
}
