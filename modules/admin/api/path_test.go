package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/admin/api"
)

// A token may have any byte of ASCII, and even be a direction such as "..". The one exception is "/" alone: net/http's
// ServeMux takes the segment %2F for the end of a path. docs/admin-api.md says so.
func TestEveryNameFindsItsWayThroughAPath(t *testing.T) {
	var got string
	mux := http.NewServeMux()
	mux.HandleFunc("GET /admin/things/{name}/parts/{part}", func(_ http.ResponseWriter, r *http.Request) {
		got = r.PathValue("name") + "|" + r.PathValue("part")
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	ask := func(name, part string) string {
		got = ""
		request, err := http.NewRequestWithContext(context.Background(), http.MethodGet,
			server.URL+api.Path("admin", "things", name, "parts", part), nil)
		require.NoError(t, err)
		answer, err := client.Do(request)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, http.StatusOK, answer.StatusCode, "%q %q", name, part)
		return got
	}
	for _, name := range []string{".", "..", "//", "a/../b", "%2F", "{}", "*", "?a=b#c", "\n\r", " ", "\x7f"} {
		require.Equal(t, name+"|"+name, ask(name, name))
	}
	ascii := rapid.SliceOfN(rapid.ByteRange(1, 127), 1, 64)
	names := rapid.Map(ascii, func(name []byte) string { return string(name) }).
		Filter(func(name string) bool { return name != "/" })
	rapid.Check(t, func(t *rapid.T) {
		name, part := names.Draw(t, "name"), names.Draw(t, "part")
		require.Equal(t, name+"|"+part, ask(name, part))
	})
}
