package transport

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
)

// serveLive starts a server with a configuration that set changes.
func serveLive(t *testing.T) (f *fixture, set func(text string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "transport.yaml")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write("")
	load := func() (*configs.Set, error) {
		return configs.Load([]configs.Section{{Name: "transport", Defaults: testConfig()}},
			configs.Source{Files: []string{path}})
	}
	first, err := load()
	require.NoError(t, err)
	live := configs.NewLive(first, load)
	health, err := observability.NewHealth(nil)
	require.NoError(t, err)
	config := testConfig()
	f = &fixture{processor: &processor{}, budget: newBudget(config, 0), health: health, failed: make(chan error, 1)}
	decoder, err := newDecoder(live, f.budget)
	require.NoError(t, err)
	handler, err := posthog.NewHandler(live, decoder, f.budget, f.processor, tally.NoopScope)
	require.NoError(t, err)
	f.Server, err = NewServer(live, 0, handler.Routes(), nil, f.budget, health, zap.NewNop(), tally.NoopScope,
		func(err error) { f.failed <- err })
	require.NoError(t, err)
	require.NoError(t, f.Start(context.Background()))
	f.url = "http://" + f.Addr().String()
	t.Cleanup(func() { require.NoError(t, f.Stop(context.Background())) })
	return f, func(text string) {
		t.Helper()
		write("transport:\n" + text)
		_, err := live.Reload()
		require.NoError(t, err)
	}
}

// A setting of requests holds for the next request, also on a connection that is open already.
func TestLimitsNetworksAndGroupsChangeForTheNextRequest(t *testing.T) {
	f, set := serveLive(t)
	conn := f.dial(t)
	status := func(text string) int {
		response, _ := conn.send("POST", text)
		return response.StatusCode
	}
	capture := request("POST", "/e/", "X-Forwarded-For: 9.9.9.9\r\n", event)
	require.Equal(t, 200, status(capture))

	set("  trusted_proxies: []\n")
	require.Equal(t, 200, status(capture))
	require.Equal(t, []string{"9.9.9.9", "127.0.0.1"}, f.processor.ips)

	set("  max_body: 30\n")
	require.Equal(t, 413, status(capture))
	set("  max_decoded: 30\n")
	require.Equal(t, 413, status(capture))
	set("  serve: [setup]\n")
	require.Equal(t, 404, status(capture))
	require.Equal(t, 404, status(request("OPTIONS", "/e/", "", "")))
	response, _ := conn.send("PUT", request("PUT", "/e/", "", ""))
	require.Equal(t, 404, response.StatusCode, "a method that a path of no served group does not have")
	require.Empty(t, response.Header.Get("Allow"))
	set("  max_in_flight: 1GiB\n  retry_after: 7s\n")
	require.EqualValues(t, 1<<30, f.budget.Limit())
	require.Equal(t, 200, status(capture))

	release := spend(f.budget)
	response, _ = conn.send("POST", capture)
	require.Equal(t, 503, response.StatusCode)
	require.Equal(t, "7", response.Header.Get("Retry-After"))
	release()
}

// A setting of connections holds for the next request, also on a connection that is open already.
func TestTimeoutsAndTheSizeOfHeadersChangeForTheNextRequest(t *testing.T) {
	f, set := serveLive(t)
	before := f.dial(t)
	before.requireUsable()
	long := request("POST", "/e/", "X-Long: "+strings.Repeat("x", 6<<10)+"\r\n", event)
	response, _ := before.send("POST", long)
	require.Equal(t, 200, response.StatusCode)

	set("  idle_timeout: 20ms\n  max_header: 4KiB\n")
	response, body := before.send("POST", long)
	require.Equal(t, 431, response.StatusCode)
	require.Contains(t, body, "exceed 4096 bytes")
	idle := f.dial(t)
	idle.requireUsable()
	_, err := idle.answers.ReadByte()
	require.ErrorIs(t, err, io.EOF, "the connection was closed for being idle")

	set("  body_timeout: 20ms\n")
	late := f.dial(t)
	late.requireUsable()
	late.stall("", 100, 50)
	response, _ = late.answer("POST")
	require.Equal(t, 408, response.StatusCode)
	set("  min_body_rate: 1GiB\n  body_grace: 20ms\n")
	late = f.dial(t)
	late.requireUsable()
	late.stall("", 100, 50)
	response, _ = late.answer("POST")
	require.Equal(t, 408, response.StatusCode)

	set("  max_connections: 1\n")
	response, _ = f.dial(t).answer("POST")
	require.Equal(t, 503, response.StatusCode)
	set("")
	f.dial(t).requireUsable()
}

// Every connection ends with the service: an idle one at once, a busy one after its answer.
func TestAStopEndsIdleConnections(t *testing.T) {
	f, set := serveLive(t)
	old := f.dial(t)
	old.requireUsable()
	set("  idle_timeout: 1h\n")
	young := f.dial(t)
	young.requireUsable()
	require.NoError(t, f.Stop(context.Background()))
	for _, conn := range []*connection{old, young} {
		_, err := conn.answers.ReadByte()
		require.Error(t, err)
	}
	_, err := http.Get(f.url + "/_liveness")
	require.Error(t, err)
}

func TestATraceParentIsTakenOverIfItIsOne(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for value, want := range map[string]string{
		good:                   good,
		good + "-more":         "",
		"01" + good[2:] + "-x": "01" + good[2:],
		"ff" + good[2:]:        "",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": "",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": "",
		strings.ToUpper(good):              "",
		good[:54]:                          "",
		"":                                 "",
		strings.Replace(good, "-", "_", 1): "",
	} {
		require.Equal(t, want, traceParent([]byte(value)), value)
	}
}

// What runs outside a route, such as the answer to a path that nobody serves, may panic as well.
func TestAPanicOutsideARouteIsA500(t *testing.T) {
	f := serve(t, nil)
	before := panics.Count()
	var ctx fasthttp.RequestCtx
	f.contain(&ctx, func(*fasthttp.RequestCtx) { panic("boom") })
	require.Equal(t, 500, ctx.Response.StatusCode())
	require.Equal(t, "internal server error", string(ctx.Response.Body()))
	require.Equal(t, before+1, panics.Count())
}

// A route of somebody else's may answer nonsense, and may panic when its answer is over.
func TestWhatARouteGetsWrongAboutItsAnswerHurtsNobodyElse(t *testing.T) {
	config := testConfig()
	health, err := observability.NewHealth(nil)
	require.NoError(t, err)
	answers := map[string]route.Response{
		"/late":  {Status: 200, ContentType: route.TypeText, Bytes: []byte("x"), Done: func() { panic("boom") }},
		"/high":  {Status: 99999, ContentType: route.TypeText, Body: "x"},
		"/minus": {Status: -1, ContentType: route.TypeText, Body: "x"},
		"/early": {Status: 100, ContentType: route.TypeText, Body: "x"},
	}
	var routes []route.Route
	for path, answer := range answers {
		routes = append(routes, route.Route{Path: path, Methods: []string{"GET"},
			Handle: func(context.Context, *route.Request) route.Response { return answer }})
	}
	server, err := NewServer(configs.Fixed(config), 0, routes, nil, newBudget(config, 0), health, zap.NewNop(),
		tally.NoopScope, func(error) {})
	require.NoError(t, err)
	f := &fixture{Server: server}
	require.NoError(t, f.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, f.Stop(context.Background())) })
	before := panics.Count()
	for path := range answers {
		response, body := f.dial(t).send("GET", request("GET", path, "", ""))
		require.Equal(t, "x", body, path)
		if path == "/late" {
			require.Equal(t, 200, response.StatusCode)
		} else {
			require.Equal(t, 500, response.StatusCode, path)
		}
	}
	require.Eventually(t, func() bool { return panics.Count() > before }, patience, time.Millisecond)
}

// A request that began under one configuration is judged and answered by it, though another is in force by then.
func TestARequestIsAnsweredByTheConfigurationThatItBeganUnder(t *testing.T) {
	f, set := serveLive(t)
	set("  retry_after: 7s\n")
	var seen *configs.View
	began := f.live.View()
	f.processor.judge = func(batch *events.Batch) {
		seen = batch.Config
		set("  retry_after: 9s\n")
		batch.FailPending(events.ReasonUnavailable, events.Errorf(events.Unavailable, "not now"))
	}
	response, _ := f.dial(t).send("POST", request("POST", "/e/", "", event))
	require.Equal(t, 503, response.StatusCode)
	require.Equal(t, "7", response.Header.Get("Retry-After"))
	require.Same(t, began, seen)
}

func TestRetryAfterIsInWholeSecondsOneAtLeastAndRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "1", time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", 2 * time.Second: "2",
	} {
		require.Equal(t, want, seconds(d))
	}
}

func TestARoutesOwnRetryAfterGoesBeforeTheConfigured(t *testing.T) {
	f, _ := serveLive(t)
	f.processor.judge = func(batch *events.Batch) {
		batch.RetryAfter = 42 * time.Second
		batch.FailPending(events.ReasonUnavailable, events.Errorf(events.Unavailable, "not now"))
	}
	response, _ := f.dial(t).send("POST", request("POST", "/e/", "", event))
	require.Equal(t, "42", response.Header.Get("Retry-After"))
}

func TestMaxInFlightHoldsARecording(t *testing.T) {
	config := DefaultConfig()
	config.PostHog.MaxRecording, config.MaxInFlight = 500*configs.MiB, 512*configs.MiB
	require.ErrorContains(t, config.Validate(), "max_in_flight")
}
