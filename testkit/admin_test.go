package testkit_test

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/testkit"
)

func TestTheOperatorsListenerHasTheEndpointsOfAllModulesAndReloads(t *testing.T) {
	shelf := module.Module{Name: "shelf", Options: fx.Provide(endpoint.As(func() endpoint.Endpoint {
		return endpoint.Endpoint{
			Pattern: "GET /admin/shelf", About: "What lies on the shelf.", Access: endpoint.Reader,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "books")
			}),
		}
	}))}
	service := testkit.Start(t, testkit.With(shelf))
	require.Equal(t, "books", service.Admin("/admin/shelf").Body)
	require.Contains(t, service.Admin("/").Body,
		`{"method":"GET","path":"/admin/shelf","about":"What lies on the shelf.","access":"reader"}`)

	response, err := http.Post(service.AdminURL+"/admin/reload", "", nil)
	require.NoError(t, err)
	var status configs.Status
	require.NoError(t, json.NewDecoder(response.Body).Decode(&status))
	require.NoError(t, response.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, 1, status.Number, "nothing has changed")
	require.True(t, status.Loaded.After(status.Since), "but the configuration was loaded")

	metrics := service.Admin("/metrics").Body
	require.Regexp(t, `(?m)^capture_build_info\{goversion="go.+",revision=".*",version=".+"\} 1$`, metrics)
	require.Regexp(t, `(?m)^capture_panics_total \d+$`, metrics)
	require.Contains(t, metrics, "\ncapture_config_number 1\n")
	require.Contains(t, metrics, "\ncapture_config_last_reload_successful 1\n")
	require.Regexp(t, `(?m)^capture_config_last_reload_success_timestamp_seconds \d`, metrics)
}
