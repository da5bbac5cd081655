package testkit_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/fx"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/testkit"
	"github.com/opencapture/capture/transport/route"
)

// poison is an event that makes the parts below panic.
const poison = `{"api_key":"phc_test","event":"poison","distinct_id":"me"}`

// poisoned panics if the batch has a poisonous event.
func poisoned(batch *events.Batch) {
	for i := range batch.Events {
		if batch.Events[i].Name == "poison" {
			panic("a test says so")
		}
	}
}

// contained starts a service, makes a part panic by trigger, and requires that the service goes on. who names the part
// in the log.
func contained(t *testing.T, who string, trigger func(*testkit.Service), options ...testkit.Option) *testkit.Service {
	t.Helper()
	core, logs := observer.New(zap.ErrorLevel)
	service := testkit.Start(t, append(options, testkit.Override(zap.New(core)))...)
	count := func() int { return metric(t, service.Admin("/metrics").Body, "capture_panics_total") }
	before := count()
	trigger(service)
	told := func() []observer.LoggedEntry { return logs.FilterMessage(who + " panicked").All() }
	service.Eventually("the line about the panic of "+who, func() bool { return len(told()) > 0 })
	require.Contains(t, told()[0].ContextMap()["stack"], "testkit_test.")
	require.Equal(t, "a test says so", told()[0].ContextMap()["panic"])
	require.Greater(t, count(), before)
	for range 5 {
		response := service.Post("/e/", hello)
		require.Equal(t, 200, response.Status, response.Body)
	}
	require.Equal(t, 200, service.Request(http.MethodGet, "/_liveness", "").Status)
	return service
}

// with adds a module of the test's own.
func with(options ...fx.Option) testkit.Option {
	return testkit.With(module.Module{Name: "panics", Options: fx.Options(options...)})
}

type panickyStage struct{ settles bool }

func (panickyStage) Phase() events.Phase { return events.PhasePlugins }
func (panickyStage) Name() string        { return "panicky" }

func (s panickyStage) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	if s.settles {
		return func(_ context.Context, batch *events.Batch) { poisoned(batch) }, nil
	}
	poisoned(batch)
	return nil, nil
}

func TestAStageThatPanicsEndsItsRequestAlone(t *testing.T) {
	t.Parallel()
	contained(t, "stage panicky", func(service *testkit.Service) {
		require.Equal(t, 500, service.Post("/e/", poison).Status)
	}, testkit.Override[events.Sink](testkit.NewSink()),
		with(fx.Provide(events.AsStage(func() panickyStage { return panickyStage{} }))))
}

func TestASettlementThatPanicsChangesNoAnswer(t *testing.T) {
	t.Parallel()
	contained(t, "settlement of stage panicky", func(service *testkit.Service) {
		require.Equal(t, 200, service.Post("/e/", poison).Status)
	}, testkit.Override[events.Sink](testkit.NewSink()),
		with(fx.Provide(events.AsStage(func() panickyStage { return panickyStage{settles: true} }))))
}

// panickySink panics with poison, and with the first warnings.
type panickySink struct {
	*testkit.Sink
	mu       sync.Mutex
	warnings int // how many warnings it still panics with
}

func (s *panickySink) Write(ctx context.Context, batch *events.Batch) {
	poisoned(batch)
	s.mu.Lock()
	panics := batch.Events[0].Lane == events.LaneClientWarnings && s.warnings > 0
	if panics {
		s.warnings--
	}
	s.mu.Unlock()
	if panics {
		panic("a test says so")
	}
	s.Sink.Write(ctx, batch)
}

func TestASinkThatPanicsEndsItsRequestAlone(t *testing.T) {
	t.Parallel()
	contained(t, "the sink", func(service *testkit.Service) {
		require.Equal(t, 500, service.Post("/e/", poison).Status)
	}, testkit.Override[events.Sink](&panickySink{Sink: testkit.NewSink()}))
}

func TestASinkThatPanicsDoesNotEndTheWriterOfWarnings(t *testing.T) {
	t.Parallel()
	sink := &panickySink{Sink: testkit.NewSink(), warnings: 1}
	bad := func(token string) string { return `{"api_key":"` + token + `","event":"a"}` }
	service := contained(t, "the writer of warnings", func(service *testkit.Service) {
		require.Equal(t, 400, service.Post("/e/", bad("phc_a")).Status)
	}, testkit.Override[events.Sink](sink), testkit.Set("warnings.enabled", "true"))
	require.Equal(t, 400, service.Post("/e/", bad("phc_b")).Status)
	service.Eventually("the warning behind the one that is lost", func() bool {
		for _, event := range sink.Events() {
			if event.Lane == events.LaneClientWarnings {
				return true
			}
		}
		return false
	})
}

// panickyProducer panics at a message with poison. It reports the messages in front of that message as taken.
type panickyProducer struct{}

func (panickyProducer) Produce(messages []produce.Message, report func(int, error)) {
	for i := range messages {
		if strings.Contains(string(messages[i].Value), "poison") {
			panic("a test says so")
		}
		report(i, nil)
	}
}

func (panickyProducer) Flush(context.Context) error { return nil }
func (panickyProducer) Ready() error                { return nil }
func (panickyProducer) Start(context.Context) error { return nil }
func (panickyProducer) Stop(context.Context) error  { return nil }

func TestAProducerThatPanicsEndsItsRequestAlone(t *testing.T) {
	t.Parallel()
	contained(t, "the producer", func(service *testkit.Service) {
		response := service.Post("/e/", poison)
		require.Equal(t, 503, response.Status, response.Body)
	}, testkit.Override[produce.Producer](panickyProducer{}), testkit.Set("delivery.ack", "kafka"))
}

// A batch whose messages take several ways at once once brought the service down.
func TestAProducerThatPanicsWithAMixedBatchLeavesTheServiceAlive(t *testing.T) {
	t.Parallel()
	batch := `{"api_key":"phc_test","batch":[{"event":"one","distinct_id":"me"},
		{"event":"$exception","distinct_id":"me","properties":{"text":"poison"}},
		{"event":"$exception","distinct_id":"me"}]}`
	service := contained(t, "the producer", func(service *testkit.Service) {
		require.Equal(t, 503, service.Post("/batch/", batch).Status)
	}, testkit.Override[produce.Producer](panickyProducer{}), testkit.Set("delivery.lanes.exceptions", "kafka"))
	require.Equal(t, 503, service.Post("/batch/", batch).Status, "and again")
	require.Equal(t, 200, service.Post("/e/", hello).Status)
}

// An event that waits in the spool for a producer that panics stays there, and its drain goes on trying.
func TestADrainWhoseProducerPanicsGoesOn(t *testing.T) {
	t.Parallel()
	service := contained(t, "the drain of topic events_test", func(service *testkit.Service) {
		require.Equal(t, 200, service.Post("/e/", poison).Status)
	}, testkit.Override[produce.Producer](panickyProducer{}), testkit.Set("kafka.topics.events", "events_test"))
	require.Equal(t, "spool", service.Post("/e/", hello).Header.Get("X-Capture-Ack"), "behind the event that waits")
}

func TestAHealthCheckThatPanicsHasFailed(t *testing.T) {
	t.Parallel()
	service := contained(t, "the health check panicky", func(service *testkit.Service) {
		require.Equal(t, 503, service.Request(http.MethodGet, "/_readiness", "").Status)
	}, testkit.Override[events.Sink](testkit.NewSink()),
		with(fx.Provide(observability.AsCheck(func() observability.Check {
			return observability.Check{Name: "panicky", Ready: func(context.Context) error { panic("a test says so") }}
		}))))
	require.Contains(t, service.Admin("/readyz").Body, "panic: a test says so")
}

type panickyCollector struct{}

var panickyMetric = prometheus.NewDesc("panicky", "", nil, nil)

func (panickyCollector) Describe(descs chan<- *prometheus.Desc) { descs <- panickyMetric }
func (panickyCollector) Collect(chan<- prometheus.Metric)       { panic("a test says so") }

func TestACollectorThatPanicsIsMissingInTheMetricsAlone(t *testing.T) {
	t.Parallel()
	contained(t, "a collector of metrics", func(service *testkit.Service) {
		response := service.Admin("/metrics")
		require.Equal(t, 200, response.Status)
		require.Contains(t, response.Body, "capture_events_received_total")
	}, testkit.Override[events.Sink](testkit.NewSink()),
		with(fx.Provide(observability.AsCollector(func() prometheus.Collector { return panickyCollector{} }))))
}

func TestAHandlerThatPanicsIsA500(t *testing.T) {
	t.Parallel()
	contained(t, "request", func(service *testkit.Service) {
		require.Equal(t, 500, service.Post("/panicky", "{}").Status)
	}, testkit.Override[events.Sink](testkit.NewSink()),
		with(fx.Provide(route.As(func() []route.Route {
			handle := func(context.Context, *route.Request) route.Response { panic("a test says so") }
			return []route.Route{{Path: "/panicky", Methods: []string{http.MethodPost}, Handle: handle}}
		}))))
}
