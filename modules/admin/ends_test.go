package admin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/panics"
)

// A profile that panics is over, and another may begin.
func TestAProfileThatPanicsIsOver(t *testing.T) {
	broken := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("no samples") })
	timed := oneAtATime(make(chan struct{}, 1), broken, isWhole)
	for range 2 {
		answer := httptest.NewRecorder()
		require.ErrorContains(t, panics.Catch(func() error {
			timed.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/?seconds=1", nil))
			return nil
		}), "no samples")
		require.NotEqual(t, http.StatusConflict, answer.Code)
	}
}

// A stop ends the connections that are served with the timeouts of earlier configurations, too.
func TestStopEndsTheConnectionsOfEarlierConfigurations(t *testing.T) {
	const request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
	r := start(t, plan{settings: map[string]string{"idle_timeout": "1h"}})
	old := r.dial(t, request)
	require.Equal(t, http.StatusOK, read(t, old).status)
	r.set("idle_timeout", "2h")
	r.reload(t)
	require.Equal(t, http.StatusOK, read(t, r.dial(t, request)).status)
	require.NoError(t, r.Stop(t.Context()))
	_, err := io.Copy(io.Discard, old)
	require.NoError(t, err, "the server has closed the connection")
}
