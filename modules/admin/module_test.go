package admin

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
)

type groups struct {
	fx.In

	Server     *Server
	Background []module.Background `group:"background"`
	Facts      []module.StartFact  `group:"start_facts"`
}

func startApp(t *testing.T) (*fx.App, groups) {
	t.Helper()
	var got groups
	app := fx.New(
		fx.NopLogger,
		fx.Supply(testConfig(), configs.Fixed(observability.DefaultConfig())),
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
