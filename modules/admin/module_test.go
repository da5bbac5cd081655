package admin

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
)

type groups struct {
	fx.In

	Server     *Server
	Background []module.Background `group:"background"`
	Facts      []module.StartFact  `group:"start_facts"`
}

func startApp(t *testing.T, more ...fx.Option) (*fx.App, groups) {
	t.Helper()
	var got groups
	app := fx.New(
		fx.NopLogger,
		fx.Supply(testConfig(), module.Build{Version: "v1"}, module.AllMetrics([]module.Module{Module()})),
		fx.Supply(configs.Fixed(testConfig(), observability.DefaultConfig())),
		fx.Options(more...),
		observability.Module().Options, Module().Options,
		fx.Invoke(func(g groups) { got = g }),
	)
	require.NoError(t, app.Err())
	require.NoError(t, app.Start(t.Context()))
	return app, got
}

func TestTheModuleRunsInTheBackgroundAndSaysWhereItListens(t *testing.T) {
	app, got := startApp(t)
	require.Equal(t, []module.Background{got.Server}, got.Background)
	require.Len(t, got.Facts, 1)
	require.Equal(t, "metrics", got.Facts[0].Name)
	require.Equal(t, "http://"+got.Server.Addr().String()+"/metrics", got.Facts[0].Text())
	require.NoError(t, app.Stop(t.Context()))
}

func TestAModuleAddsAnEndpointOfItsOwn(t *testing.T) {
	answer := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
	}
	app, got := startApp(t, fx.Provide(
		endpoint.As(func() endpoint.Endpoint {
			return endpoint.Endpoint{Pattern: "GET /keys", About: "Keys.", Access: endpoint.Reader,
				Handler: answer("many")}
		}),
		endpoint.AsEach(func() []endpoint.Endpoint {
			return []endpoint.Endpoint{
				{Pattern: "GET /locks", About: "Locks.", Access: endpoint.Reader, Handler: answer("few")},
				{Pattern: "PUT /locks", About: "Another lock.", Handler: answer("one more")},
			}
		}),
	))
	r := &running{Server: got.Server}
	require.Equal(t, "many", r.get(t, "/keys").body)
	require.Equal(t, "few", r.get(t, "/locks").body)
	require.Equal(t, "one more", r.send(t, http.MethodPut, "/locks").body)
	require.Contains(t, r.get(t, "/").body,
		`{"method":"PUT","path":"/locks","about":"Another lock.","access":"operator"}`)
	require.Contains(t, r.get(t, "/metrics").body, `capture_build_info{goversion="",revision="",version="v1"} 1`)
	require.NoError(t, app.Stop(t.Context()))
}

func TestTwoModulesWithOneEndpointAreTold(t *testing.T) {
	keys := endpoint.As(func() endpoint.Endpoint {
		return endpoint.Endpoint{Pattern: "GET /keys", About: "Keys.", Handler: http.NotFoundHandler()}
	})
	app := fx.New(
		fx.NopLogger,
		fx.Supply(testConfig(), observability.DefaultConfig(), module.Build{},
			configs.Fixed(testConfig(), observability.DefaultConfig())),
		fx.Decorate(func() tally.Scope { return tally.NoopScope }), // a real one has a goroutine until the app stops
		observability.Module().Options, Module().Options,
		fx.Provide(keys, keys),
		fx.Invoke(func(*Server) {}),
	)
	require.ErrorContains(t, app.Err(), `the operators' endpoint "GET /keys": two endpoints have this pattern`)
}

func TestAServeFailureEndsTheAppWithANonZeroCode(t *testing.T) {
	app, got := startApp(t)
	require.NoError(t, got.Server.listener.Close())
	select {
	case signal := <-app.Wait():
		require.Equal(t, 1, signal.ExitCode)
	case <-time.After(patience):
		t.Fatal("the app was not told to stop")
	}
	require.NoError(t, app.Stop(t.Context()))
}
