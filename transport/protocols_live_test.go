package transport_test

import (
	"bytes"
	"context"
	"mime/multipart"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport"
	"github.com/opencapture/capture/transport/ai"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/otlp"
	"github.com/opencapture/capture/transport/posthog"
	v1 "github.com/opencapture/capture/transport/posthog/v1"
	"github.com/opencapture/capture/transport/route"
)

// witness is a sink that accepts every event and keeps what it was told of the request.
type witness struct{ batch events.Batch }

func (w *witness) Write(_ context.Context, batch *events.Batch) {
	w.batch = *batch
	w.batch.TraceParent = strings.Clone(batch.TraceParent)
	for i := range batch.Events {
		batch.Events[i].Accept()
	}
}

// liveConfig returns the configuration of the protocols, loaded from a file, and a function that exchanges it for
// another.
func liveConfig(t *testing.T) (live *configs.Live, exchange func(text string)) {
	path := filepath.Join(t.TempDir(), "capture.yaml")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	load := func() (*configs.Set, error) {
		return configs.Load([]configs.Section{
			{Name: "transport", Defaults: transport.DefaultConfig()}, {Name: "ai", Defaults: ai.DefaultConfig()},
			{Name: "otlp", Defaults: otlp.DefaultConfig()},
		}, configs.Source{Files: []string{path}})
	}
	write("")
	set, err := load()
	require.NoError(t, err)
	live = configs.NewLive(set, load)
	return live, func(text string) {
		write(text)
		_, err := live.Reload()
		require.NoError(t, err)
	}
}

// Every key of the protocols is live. A request is judged by the configuration that was in force when it came. The next
// request is judged by the new one, also if it uses the memory of the request before.
func TestARequestIsJudgedByTheConfigurationThatItCameUnder(t *testing.T) {
	live, exchange := liveConfig(t)
	sink, budget := &witness{}, memory.NewBudget(1<<30)
	pipeline, err := events.NewPipeline(zap.NewNop(), tally.NoopScope)
	require.NoError(t, err)
	processor := events.NewProcessor(pipeline, sink, events.NewLedger(), zap.NewNop(), tally.NoopScope)
	decoder := decode.New(route.Fixed(100<<20), budget)

	first, err := posthog.NewHandler(live, decoder, budget, processor, tally.NoopScope)
	require.NoError(t, err)
	second, err := v1.NewHandler(live, decoder, budget, processor, tally.NoopScope)
	require.NoError(t, err)
	parts, err := ai.NewHandler(live, decoder, budget, processor, tally.NoopScope)
	require.NoError(t, err)
	traces, err := otlp.NewHandler(live, decoder, budget, processor, tally.NoopScope)
	require.NoError(t, err)

	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	header := route.Headers{
		"Authorization": "Bearer phc_test", "PostHog-Sdk-Info": "test/1", "PostHog-Attempt": "1", "User-Agent": "test",
		"PostHog-Request-Id":        "01a20526-db14-71b9-bce0-3d6c94bebba0",
		"PostHog-Request-Timestamp": now.Format(time.RFC3339),
	}
	const uuid = "0198c0de-0000-7000-8000-00000000000"
	event := func(n string) string {
		return `{"event":"a","uuid":"` + uuid + n + `","distinct_id":"u","timestamp":"2026-11-24T11:58:00Z"}`
	}
	span := `{"attributes":[{"key":"gen_ai.a","value":{"intValue":"1"}}]}`
	var form bytes.Buffer
	writer := multipart.NewWriter(&form)
	for name, text := range map[string]string{
		"event": `{"event":"$ai_span","uuid":"` + uuid + `1","distinct_id":"u","properties":{"$ai_model":"m"}}`,
	} {
		part, err := writer.CreateFormField(name)
		require.NoError(t, err)
		_, err = part.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, writer.Close())

	requests := map[string]struct {
		handle            func(context.Context, *route.Request) route.Response
		contentType, body string
		refused           int
	}{
		"v0": {first.Capture, "application/json",
			`{"api_key":"k","batch":[` + event("1") + `,` + event("2") + `]}`, 413},
		"v1": {second.Capture, "application/json",
			`{"created_at":"2026-11-24T11:59:00Z","batch":[` + event("1") + `,` + event("2") + `]}`, 413},
		"AI in parts": {parts.Capture, writer.FormDataContentType(), form.String(), 413},
		"OTLP": {traces.Traces, "application/json",
			`{"resourceSpans":[{"scopeSpans":[{"spans":[` + span + `,` + span + `]}]}]}`, 400},
		"an AI batch": {first.CaptureAI, "application/json",
			`[{"api_key":"k","event":"$ai_x","distinct_id":"u"}]`, 400},
		"one bad of two": {first.Capture, "application/json",
			`[{"api_key":"k","event":"a","distinct_id":"u"},{"api_key":"k"}]`, 400},
	}
	status := func(name string, under *configs.View) int {
		of := requests[name]
		sink.batch = events.Batch{}
		response := of.handle(context.Background(), &route.Request{
			Path: "/e/", ContentType: of.contentType, Header: header, Body: []byte(of.body),
			ClientIP: "192.0.2.1", RequestID: "r",
			TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Received: now, Config: under,
		})
		if response.Status == 200 {
			require.Same(t, under, sink.batch.Config, name)
			require.Equal(t, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", sink.batch.TraceParent, name)
			require.Equal(t, now, sink.batch.Received)
		}
		return response.Status
	}
	maxBody := func(path string, under *configs.View) int64 {
		for _, routes := range [][]route.Route{first.Routes(), parts.Routes(), traces.Routes()} {
			for _, served := range routes {
				if served.Path == path {
					return served.MaxBody(under)
				}
			}
		}
		t.Fatalf("nobody serves %s", path)
		return 0
	}

	exchange("transport: {posthog: {ai_lane: prefix}}")
	generous := live.View()
	exchange("transport: {posthog: {max_events: 1, max_recording: 1MiB, batch_policy: all_or_nothing}}\n" +
		"ai: {max_sum_of_parts: 10}\notlp: {max_ai_spans: 1, max_body: 1KiB}")
	strict := live.View()
	require.NotSame(t, generous, strict)
	for range 2 {
		for name, of := range requests {
			require.Equal(t, 200, status(name, generous), name)
			if name == "one bad of two" {
				continue // The strict configuration takes no two events.
			}
			require.Equal(t, of.refused, status(name, strict), name)
			require.Equal(t, of.refused, status(name, nil), "nil is the one in force: "+name)
		}
	}
	for path, want := range map[string][2]int64{
		"/s": {25 << 20, 1 << 20}, "/i/v0/ai": {25<<20 + 25<<20/10, 11}, "/i/v0/ai/otel": {4 << 20, 1 << 10},
	} {
		require.Equal(t, want, [2]int64{maxBody(path, generous), maxBody(path, nil)}, path)
	}

	exchange("transport: {posthog: {batch_policy: all_or_nothing}}")
	require.Equal(t, 400, status("one bad of two", live.View()))
	require.Equal(t, 200, status("one bad of two", generous))
}
