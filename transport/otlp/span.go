package otlp

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/posthog"
)

const (
	traceIDSize = 16
	spanIDSize  = 8
)

// spanSpace is the namespace of the UUIDs of spans.
var spanSpace = uuid.MustParse("7d0f3d5b-6a0e-5b0a-9f43-2f8f1c64a9d1")

// aiPrefixes begin the names of the attributes that only spans about AI have: those of OpenTelemetry's own conventions
// and those of the libraries before them. (OpenInference and Traceloop both use the one of llm.)
var aiPrefixes = []string{
	"gen_ai.", "ai.", "eve.", "pydantic_ai.", "traceloop.", "llm.", "openinference.", "langwatch.",
}

// isAI reports whether a span is about AI.
func isAI(span *tracepb.Span) bool {
	return slices.ContainsFunc(span.GetAttributes(), func(attribute *commonpb.KeyValue) bool {
		return hasPrefix(attribute, aiPrefixes)
	})
}

func hasPrefix(attribute *commonpb.KeyValue, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool {
		return strings.HasPrefix(attribute.GetKey(), prefix)
	})
}

// operations are the attributes, one of each convention, that say what a span did, with the events for their values.
var operations = []struct {
	key    string
	events map[string]string
}{
	{"gen_ai.operation.name", map[string]string{
		"chat": generation, "text_completion": generation, "generate_content": generation, "embeddings": embedding,
	}},
	{"llm.request.type", map[string]string{
		"chat": generation, "completion": generation, "embedding": embedding, "embeddings": embedding,
	}},
	{"openinference.span.kind", map[string]string{"LLM": generation, "EMBEDDING": embedding}},
}

const (
	generation = "$ai_generation"
	embedding  = "$ai_embedding"
)

// eventName returns the name of the event that a span becomes.
func eventName(span *tracepb.Span) string {
	name := ""
	// Vercel's AI SDK gives the gen_ai attributes of the span that calls the model to the spans around it, too.
	if operation := textOf(span.GetAttributes(), "ai.operationId"); operation != "" {
		switch {
		case strings.HasSuffix(operation, ".doGenerate"), strings.HasSuffix(operation, ".doStream"):
			name = generation
		case operation == "ai.embed.doEmbed", operation == "ai.embedMany.doEmbed":
			name = embedding
		}
	} else {
		for _, convention := range operations {
			if name = convention.events[textOf(span.GetAttributes(), convention.key)]; name != "" {
				break
			}
		}
	}
	switch {
	case name != "":
		return name
	case idOf(span.GetParentSpanId(), spanIDSize) == "":
		return "$ai_trace"
	default:
		return "$ai_span"
	}
}

// mapped are the properties that are made of attributes. Each is made of the first of its attributes that the span has.
// The attributes stay in the event, too: they are small, and PostHog's pipeline looks at some of them.
var mapped = []struct {
	to   string
	from []string
}{
	{"$ai_model", []string{
		"gen_ai.response.model", "gen_ai.request.model", "llm.response.model", "llm.request.model", "llm.model_name",
	}},
	{"$ai_provider", []string{"gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "llm.vendor"}},
	{"$ai_input_tokens", []string{
		"gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens", "llm.token_count.prompt",
	}},
	{"$ai_output_tokens", []string{
		"gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens",
		"llm.token_count.completion",
	}},
	{"$ai_cache_read_input_tokens", []string{
		"gen_ai.usage.cache_read.input_tokens", "llm.token_count.prompt_details.cache_read",
	}},
	{"$ai_cache_creation_input_tokens", []string{
		"gen_ai.usage.cache_creation.input_tokens", "llm.token_count.prompt_details.cache_write",
	}},
	{"$ai_base_url", []string{"server.address"}},
	{"$ai_session_id", []string{
		"ai.telemetry.metadata.$ai_session_id", "ai.settings.context.$ai_session_id", "eve.session.id",
		"anthropic.session.id",
		"gen_ai.conversation.id", "session.id",
	}},
}

// messages are the properties that hold what was said. They may be large, so an attribute that became one of them is
// left out of the event. roles are the names of the span's events that hold one message each, with the role of its
// speaker.
var messages = []struct {
	to    string
	from  []string
	roles map[string]string
}{
	{"$ai_input", []string{"gen_ai.input.messages", "gen_ai.prompt", "ai.prompt.messages"}, map[string]string{
		"gen_ai.system.message": "system", "gen_ai.user.message": "user", "gen_ai.assistant.message": "assistant",
		"gen_ai.tool.message": "tool",
	}},
	{"$ai_output_choices", []string{"gen_ai.output.messages", "gen_ai.completion"},
		map[string]string{"gen_ai.choice": "assistant"}},
}

// noise begins the names of the attributes in which SDKs by themselves describe the process.
var noise = []string{"host.", "process.", "os.", "telemetry."}

var (
	spanUsers = []string{
		"ai.telemetry.metadata.posthog_distinct_id", "ai.settings.context.posthog_distinct_id", "posthog.distinct_id",
		"user.id", "enduser.id",
	}
	resourceUsers = []string{"posthog.distinct_id", "user.id", "enduser.id"}
)

// traces makes an event of every span that is about AI. It returns how many other spans there were.
func (b *batch) traces(data *tracepb.TracesData, config Config) (ignored int, err *events.Error) {
	spans, ai := 0, 0
	for _, resource := range data.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			spans += len(scope.GetSpans())
			for _, span := range scope.GetSpans() {
				if isAI(span) {
					ai++
				}
			}
		}
	}
	switch {
	case spans > config.MaxSpans:
		return 0, events.Errorf(events.Invalid, "request holds %d spans, the limit is %d: send smaller batches",
			spans, config.MaxSpans)
	case ai > config.MaxAISpans:
		return 0, events.Errorf(events.Invalid, "request holds %d AI spans, the limit is %d: send smaller batches",
			ai, config.MaxAISpans)
	}
	if err := b.grow(ai); err != nil {
		return 0, err
	}
	for _, found := range data.GetResourceSpans() {
		resource, err := b.spanResource(found.GetResource().GetAttributes())
		if err != nil {
			return 0, err
		}
		for _, scope := range found.GetScopeSpans() {
			if b.trim.scope(scope.GetScope()); b.trim.err != nil {
				return 0, b.trim.err
			}
			for _, span := range scope.GetSpans() {
				if !isAI(span) {
					continue
				}
				if err := b.span(span, resource, scope.GetScope()); err != nil {
					return 0, err
				}
			}
		}
	}
	return spans - ai, nil
}

// spanResource is what a resource says about its spans.
type spanResource struct {
	attributes
	// user is JSON.
	user []byte
	// members are the attributes as members of an object, in the order of the list. fault says why some are missing.
	members [][]byte
	fault   *events.Error
}

// spanResource shortens and writes a resource.
func (b *batch) spanResource(list []*commonpb.KeyValue) (spanResource, *events.Error) {
	list = slices.DeleteFunc(slices.Clone(list), func(attribute *commonpb.KeyValue) bool {
		return hasPrefix(attribute, noise)
	})
	resource := spanResource{attributes: b.trim.attributes(newAttributes(list))}
	resource.user, resource.fault = b.encode(textOf(resource.list, resourceUsers...))
	resource.members = make([][]byte, len(resource.list))
	w := &b.writer
	for i, attribute := range resource.list {
		if resource.fault != nil {
			break
		}
		w.begin()
		w.string(attribute.GetKey())
		w.raw(":")
		w.value(attribute.GetValue())
		resource.members[i], resource.fault = w.end()
	}
	switch {
	case b.trim.err != nil:
		return spanResource{}, b.trim.err
	case resource.fault != nil && !b.spares(resource.fault):
		return spanResource{}, resource.fault
	}
	return resource, nil
}

// span makes the event of one span.
func (b *batch) span(span *tracepb.Span, resource spanResource, scope *commonpb.InstrumentationScope) *events.Error {
	trace, id := idOf(span.GetTraceId(), traceIDSize), idOf(span.GetSpanId(), spanIDSize)
	from := source{
		name: eventName(span), lane: events.LaneAI, space: spanSpace,
		user: textOf(span.GetAttributes(), spanUsers...), fallback: trace, resourceUser: resource.user,
		nanos: span.GetStartTimeUnixNano(),
	}
	if from.nanos == 0 {
		from.nanos = span.GetEndTimeUnixNano()
	}
	if trace != "" && id != "" {
		from.identity = trace + id
	}
	return b.add(from, func(w *writer) {
		if resource.fault != nil {
			w.err = resource.fault
			return
		}
		p := spanProperties{
			writer: w, span: span, scope: scope, own: newAttributes(span.GetAttributes()), resource: resource,
			done: map[string]bool{},
		}
		p.write(trace, id)
	})
}

// spanProperties writes the properties of a span's event.
type spanProperties struct {
	*writer
	span  *tracepb.Span
	scope *commonpb.InstrumentationScope

	// own are the span's attributes and go before those of the resource. done are the names that are written already,
	// and the names that must not be written.
	own      attributes
	resource spanResource
	done     map[string]bool
}

// find returns the attribute of a name, or nil if there is none or the name is done.
func (p *spanProperties) find(name string) *commonpb.KeyValue {
	if p.done[name] {
		return nil
	}
	return cmp.Or(p.own.byKey[name], p.resource.byKey[name])
}

func (p *spanProperties) write(trace, id string) {
	p.raw("{")
	p.text("$ai_trace_id", trace)
	p.text("$ai_span_id", id)
	p.text("$ai_parent_id", idOf(p.span.GetParentSpanId(), spanIDSize))
	p.text("$ai_ingestion_source", "otel")
	p.name()
	p.times()
	p.fault()
	p.defaults()
	for _, property := range mapped {
		for _, key := range property.from {
			if found := p.find(key); found != nil && p.free(property.to) {
				p.key(property.to)
				p.value(found.GetValue())
				break
			}
		}
	}
	for _, property := range messages {
		if p.free(property.to) && !p.said(property.to, property.from) {
			p.spoken(property.to, property.roles)
		}
	}
	for i, attribute := range p.resource.list {
		if name := attribute.GetKey(); p.own.byKey[name] == nil && p.isRest(name) {
			p.comma()
			p.json(p.resource.members[i])
		}
		if p.err != nil {
			return
		}
	}
	for _, attribute := range p.own.list {
		if name := attribute.GetKey(); p.isRest(name) {
			p.key(name)
			p.value(attribute.GetValue())
		}
		if p.err != nil {
			return
		}
	}
	p.raw("}")
}

// isRest reports whether an attribute is still to be written under its own name: that name is not done and not one of
// the AI gateway's.
func (p *spanProperties) isRest(name string) bool {
	return !p.done[name] && !strings.HasPrefix(name, posthog.GatewayPrefix)
}

// free reports whether no attribute of the name is left to write. Such an attribute counts before a property of the
// same name that is made of others.
func (p *spanProperties) free(name string) bool { return p.find(name) == nil }

// text writes a property that counts before any attribute of its name. An empty text writes neither.
func (p *spanProperties) text(name, text string) {
	p.done[name] = true
	if text != "" {
		p.key(name)
		p.string(text)
	}
}

func (p *spanProperties) name() {
	if p.span.GetName() == "" {
		return
	}
	p.text("$otel_span_name", p.span.GetName())
	if p.free("$ai_span_name") {
		p.text("$ai_span_name", p.span.GetName())
	}
}

func (p *spanProperties) times() {
	start, end := p.span.GetStartTimeUnixNano(), p.span.GetEndTimeUnixNano()
	p.text("$otel_start_time_unix_nano", strconv.FormatUint(start, 10))
	p.text("$otel_end_time_unix_nano", strconv.FormatUint(end, 10))
	if start != 0 && end > start && p.free("$ai_latency") {
		p.key("$ai_latency")
		p.number(float64(end-start) / 1e9)
	}
}

// fault writes the error of a span that failed.
func (p *spanProperties) fault() {
	if p.span.GetStatus().GetCode() != tracepb.Status_STATUS_CODE_ERROR {
		return
	}
	p.done["$ai_is_error"] = true
	p.key("$ai_is_error")
	p.raw("true")
	if !p.free("$ai_error") {
		return
	}
	kind, message := "", ""
	for _, event := range slices.Backward(p.span.GetEvents()) {
		kind, message = textOf(event.GetAttributes(), "exception.type"),
			textOf(event.GetAttributes(), "exception.message")
		if kind != "" || message != "" {
			break
		}
	}
	switch {
	case kind != "" && message != "":
		message = kind + ": " + message
	case message == "":
		message = kind
	}
	if message == "" {
		message = p.span.GetStatus().GetMessage()
	}
	p.text("$ai_error", message)
}

// defaults writes the properties that PostHog's own SDKs would have sent. $geoip_disable is true where the span does
// not say, because the client is usually a server. $lib_version is the version of the instrumentation.
func (p *spanProperties) defaults() {
	if p.free("$geoip_disable") {
		p.key("$geoip_disable")
		if said := p.find("posthog.geoip_disable"); said != nil {
			p.done["posthog.geoip_disable"] = true
			p.value(said.GetValue())
		} else {
			p.raw("true")
		}
	}
	if p.free("$lib") {
		p.text("$lib", "posthog-otel")
	}
	if p.free("$lib_version") {
		p.text("$lib_version", p.scope.GetVersion())
	}
}

// said writes the messages that an attribute holds, be it the span's or that of one of its events. It reports whether
// it found one.
func (p *spanProperties) said(to string, keys []string) bool {
	for _, key := range keys {
		if found := p.find(key); found != nil {
			p.done[key] = true
			p.key(to)
			p.structured(found.GetValue())
			return true
		}
	}
	for _, event := range p.span.GetEvents() {
		for _, attribute := range event.GetAttributes() {
			if slices.Contains(keys, attribute.GetKey()) {
				p.key(to)
				p.structured(attribute.GetValue())
				return true
			}
		}
	}
	return false
}

// spoken writes the messages that are events of the span, one message from each event.
func (p *spanProperties) spoken(to string, roles map[string]string) {
	begun := false
	for _, event := range p.span.GetEvents() {
		role := roles[event.GetName()]
		if role == "" {
			continue
		}
		if begun {
			p.raw(",")
		} else {
			p.key(to)
			p.raw("[")
			begun = true
		}
		p.raw("{")
		if p.err != nil {
			return
		}
		attributes := newAttributes(event.GetAttributes())
		if textOf(attributes.list, "role") == "" {
			p.key("role")
			p.string(role)
		}
		for _, attribute := range attributes.list {
			if key := attribute.GetKey(); key != "gen_ai.system" &&
				(key != "role" || attribute.GetValue().GetStringValue() != "") {
				p.key(key)
				p.structured(attribute.GetValue())
			}
		}
		p.raw("}")
	}
	if begun {
		p.raw("]")
	}
}
