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
			inScope, err := b.logScope(resource, scope)
			if err != nil {
				return err
			}
			for _, record := range scope.GetLogRecords() {
				if err := b.log(record, inScope); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// logResource is what a resource, and a scope in it, say about their log records. All of it is JSON that has been
// written once, except the session's id.
type logResource struct {
	session string

	user, sessionJSON, window, service, attributes, scope []byte
	// fault says why some of it is missing.
	fault *events.Error
}

// logResource shortens and writes a resource.
func (b *batch) logResource(found *logspb.ResourceLogs) (logResource, *events.Error) {
	list := b.trim.attributes(newAttributes(found.GetResource().GetAttributes())).list
	resource := logResource{session: textOf(list, logSessions...)}
	b.writer.begin()
	b.writer.object(list)
	resource.attributes, resource.fault = b.writer.end()
	for _, part := range [...]struct {
		to   *[]byte
		text string
	}{
		{&resource.user, textOf(list, logUsers...)}, {&resource.sessionJSON, resource.session},
		{&resource.window, textOf(list, logWindows...)}, {&resource.service, textOf(list, "service.name")},
	} {
		if resource.fault == nil {
			*part.to, resource.fault = b.encode(part.text)
		}
	}
	if resource.fault != nil && !b.spares(resource.fault) {
		return logResource{}, resource.fault
	}
	return resource, nil
}

// logScope shortens and writes a scope, and returns the resource with it. It refuses the request if not all records of
// the scope can repeat what they have in common.
func (b *batch) logScope(resource logResource, found *logspb.ScopeLogs) (logResource, *events.Error) {
	b.trim.scope(found.GetScope())
	if resource.fault == nil {
		resource.scope, resource.fault = b.encode(scopeName(found.GetScope()))
	}
	common := len(resource.window) + len(resource.service) + len(resource.attributes) + len(resource.scope)
	switch {
	case b.trim.err != nil:
		return logResource{}, b.trim.err
	case resource.fault != nil && !b.spares(resource.fault):
		return logResource{}, resource.fault
	case common*len(found.GetLogRecords()) > b.writer.left:
		return logResource{}, errManyBytes
	}
	return resource, nil
}

// log makes the event of one record.
func (b *batch) log(record *logspb.LogRecord, resource logResource) *events.Error {
	trace := idOf(record.GetTraceId(), traceIDSize)
	from := source{
		name: "$log", lane: events.LaneLogs, space: logSpace, impersonal: true, fallback: trace,
		nanos:   record.GetTimeUnixNano(),
		user:    textOf(record.GetAttributes(), logUsers...),
		session: textOf(record.GetAttributes(), logSessions...), resourceUser: resource.user,
	}
	ownSession := from.session
	from.session = cmp.Or(ownSession, resource.session)
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
		// common writes what the record itself says, else what its resource says.
		common := func(name, own string, shared []byte) {
			switch {
			case own != "":
				text(name, own)
			case shared != nil:
				w.key(name)
				w.json(shared)
			}
		}
		w.raw(`{"body":`)
		w.value(record.GetBody())
		text("severity_text", record.GetSeverityText())
		w.key("severity_number")
		w.integer(int64(record.GetSeverityNumber()))
		common("service_name", "", resource.service)
		text("event_name", record.GetEventName())
		text("trace_id", trace)
		text("span_id", idOf(record.GetSpanId(), spanIDSize))
		w.key("trace_flags")
		w.integer(int64(record.GetFlags()))
		common("instrumentation_scope", "", resource.scope)
		if nanos := record.GetObservedTimeUnixNano(); nanos != 0 {
			text("observed_timestamp", timeOf(nanos).Format(time.RFC3339Nano))
		}
		common("$session_id", ownSession, resource.sessionJSON)
		common("$window_id", textOf(record.GetAttributes(), logWindows...), resource.window)
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
