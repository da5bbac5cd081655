package otlp

import (
	"cmp"
	"strings"
	"time"

	"github.com/google/uuid"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/opencapture/capture/modules/events"
)

// logSpace is the namespace of the UUIDs of log records.
var logSpace = uuid.MustParse("0c3c2f4e-95d1-5f0e-8a57-6f1d0f5b7c2a")

// The attributes in which a log record names its user, session and window. The first of each list is posthog-js's.
var (
	logUsers    = []string{"posthogDistinctId", "posthog.distinct_id", "user.id", "enduser.id"}
	logSessions = []string{"sessionId", "session.id", "$session_id"}
	logWindows  = []string{"window.id", "$window_id"}
)

// logs makes an event of every record.
func (b *batch) logs(data *logspb.LogsData, config Config) *events.Error {
	records := 0
	for _, resource := range data.GetResourceLogs() {
		for _, scope := range resource.GetScopeLogs() {
			records += len(scope.GetLogRecords())
		}
	}
	if records > config.MaxRecords {
		return events.Errorf(events.TooLarge, "request holds %d log records, the limit is %d: send smaller batches",
			records, config.MaxRecords)
	}
	if err := b.grow(records); err != nil {
		return err
	}
	for _, found := range data.GetResourceLogs() {
		resource, err := b.logResource(found)
		if err != nil {
			return err
		}
		for _, scope := range found.GetScopeLogs() {
			b.trim.scope(scope.GetScope())
			name := scopeName(scope.GetScope())
			for _, record := range scope.GetLogRecords() {
				if err := b.log(record, resource, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// logResource is what a resource says about its log records.
type logResource struct {
	user, session, window, service string
	// attributes is the whole resource as JSON. It is nil if fault is set, which says why.
	attributes []byte
	fault      *events.Error
}

// logResource shortens and writes a resource. It refuses the request if the records of the resource can not all repeat
// it.
func (b *batch) logResource(found *logspb.ResourceLogs) (logResource, *events.Error) {
	records := 0
	for _, scope := range found.GetScopeLogs() {
		records += len(scope.GetLogRecords())
	}
	list := b.trim.attributes(newAttributes(found.GetResource().GetAttributes())).list
	resource := logResource{
		user: textOf(list, logUsers...), session: textOf(list, logSessions...),
		window: textOf(list, logWindows...), service: textOf(list, "service.name"),
	}
	b.writer.begin()
	b.writer.object(list)
	resource.attributes, resource.fault = b.writer.end()
	switch {
	case resource.fault != nil && !b.spares(resource.fault):
		return logResource{}, resource.fault
	case len(resource.attributes)*records > b.writer.left:
		return logResource{}, errManyBytes
	}
	return resource, nil
}

// log makes the event of one record.
func (b *batch) log(record *logspb.LogRecord, resource logResource, scope string) *events.Error {
	trace := idOf(record.GetTraceId(), traceIDSize)
	from := source{
		name: "$log", lane: events.LaneLogs, space: logSpace, impersonal: true, fallback: trace,
		nanos:   record.GetTimeUnixNano(),
		user:    cmp.Or(textOf(record.GetAttributes(), logUsers...), resource.user),
		session: cmp.Or(textOf(record.GetAttributes(), logSessions...), resource.session),
	}
	if from.nanos == 0 {
		from.nanos = record.GetObservedTimeUnixNano()
	}
	return b.add(from, func(w *writer) {
		if resource.fault != nil {
			w.err = resource.fault
			return
		}
		text := func(name, text string) {
			if text != "" {
				w.key(name)
				w.string(text)
			}
		}
		w.raw(`{"body":`)
		w.value(record.GetBody())
		text("severity_text", record.GetSeverityText())
		w.key("severity_number")
		w.integer(int64(record.GetSeverityNumber()))
		text("service_name", resource.service)
		text("event_name", record.GetEventName())
		text("trace_id", trace)
		text("span_id", idOf(record.GetSpanId(), spanIDSize))
		w.key("trace_flags")
		w.integer(int64(record.GetFlags()))
		text("instrumentation_scope", scope)
		if nanos := record.GetObservedTimeUnixNano(); nanos != 0 {
			text("observed_timestamp", timeOf(nanos).Format(time.RFC3339Nano))
		}
		text("$session_id", from.session)
		text("$window_id", cmp.Or(textOf(record.GetAttributes(), logWindows...), resource.window))
		w.key("attributes")
		w.object(record.GetAttributes())
		w.key("resource_attributes")
		w.json(resource.attributes)
		w.raw("}")
	})
}

// scopeName returns the name of an instrumentation with its version, as name@version.
func scopeName(scope *commonpb.InstrumentationScope) string {
	return strings.TrimSuffix(scope.GetName()+"@"+scope.GetVersion(), "@")
}
