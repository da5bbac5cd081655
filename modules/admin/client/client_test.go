package client_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/user"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/client"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/module"
)

func clientWith(own client.Own, args ...string) (*client.Client, error) {
	var flags client.Flags
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.Add(set)
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	return flags.Client(own)
}

func TestTheServerIsTheOneOfTheConfigurationUnlessItIsGiven(t *testing.T) {
	var asked http.Request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = *r.Clone(context.Background())
		w.Header().Set("ETag", `"t"`)
		_, _ = w.Write([]byte(`{"x":1}`))
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	for _, test := range []struct {
		listen string
		args   []string
	}{
		{address, nil}, {":" + strings.Split(address, ":")[1], nil}, {"0.0.0.0:" + strings.Split(address, ":")[1], nil},
		{"[::]:" + strings.Split(address, ":")[1], nil},
		{"1.2.3.4:5", []string{"--server", server.URL + "/"}}, {"1.2.3.4:5", []string{"--server", address}},
	} {
		c, err := clientWith(client.Own{Listen: test.listen, Token: "t0ken"}, test.args...)
		require.NoError(t, err)
		var got struct{ X int }
		tag, err := c.Get(t.Context(), api.Path("admin", "a/b", "..", "ü\n"), &got)
		require.NoError(t, err)
		require.Equal(t, 1, got.X)
		require.Equal(t, `"t"`, tag)
		require.Equal(t, "Bearer t0ken", asked.Header.Get("Authorization"))
		require.Equal(t, "/admin/a%2Fb/%2E%2E/%C3%BC%0A", asked.URL.EscapedPath())
		require.Regexp(t, `^[!-~]{0,128}$`, asked.Header.Get(endpoint.ActorHeader))
	}
	for listen, args := range map[string][]string{
		"x": nil, "127.0.0.1:0": nil, "127.0.0.1:1": {"--server", "ftp://x"},
		"127.0.0.1:2": {"--server", "http://u:p@x"},
		"127.0.0.1:3": {"--timeout", "0s"}, "127.0.0.1:4": {"--server", "http://x?y"},
	} {
		_, err := clientWith(client.Own{Listen: listen}, args...)
		require.Error(t, err, listen)
		require.NotContains(t, err.Error(), "u:p")
		var misuse *module.MisuseError
		if args != nil {
			require.ErrorAs(t, err, &misuse)
		}
	}
}

func TestAPathHasNoDirections(t *testing.T) {
	for part, want := range map[string]string{
		"phc_a-B9": "/phc_a-B9", "..": "/%2E%2E", "a/b?c#d%": "/a%2Fb%3Fc%23d%25", "{*\n}": "/%7B%2A%0A%7D",
	} {
		require.Equal(t, want, api.Path(part))
		got, err := url.PathUnescape(want[1:])
		require.NoError(t, err)
		require.Equal(t, part, got)
	}
}

func TestWhatDidNotWorkIsToldWithWhatToDo(t *testing.T) {
	answer := func(w http.ResponseWriter) {}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
	defer server.Close()
	ask := func(token string) error {
		c, err := clientWith(client.Own{Listen: strings.TrimPrefix(server.URL, "http://"), Token: ""},
			"--server", server.URL)
		require.NoError(t, err)
		if token != "" {
			c, err = clientWith(client.Own{Listen: strings.TrimPrefix(server.URL, "http://"), Token: "x"})
			require.NoError(t, err)
		}
		_, err = c.Get(t.Context(), "/x", &struct{}{})
		return err
	}
	answer = func(w http.ResponseWriter) { api.Problemf(422, "mend it").Write(w) }
	var problem *api.Problem
	require.ErrorAs(t, ask(""), &problem)
	require.Equal(t, "mend it", problem.Detail)
	answer = func(w http.ResponseWriter) {
		w.WriteHeader(502)
		api.Problemf(422, "of another server").Write(w)
	}
	require.ErrorContains(t, ask(""), " answered 502, and not as the operators' listener does")
	answer = func(w http.ResponseWriter) { api.Problemf(401, "show it").Write(w) }
	require.EqualError(t, ask(""), "the service asks for its token: give the configuration of the service by "+
		"--config, or CAPTURE_ADMIN__TOKEN")
	require.EqualError(t, ask("x"), "the service has another admin.token than the configuration of this command")
	answer = func(w http.ResponseWriter) {
		w.WriteHeader(404)
		_, _ = w.Write([]byte("<html>\x1b[31m" + strings.Repeat("x", 5000)))
	}
	require.ErrorContains(t, ask(""), " answered 404, and not as the operators' listener does (--server, "+
		"admin.listen): <html>\\u001b[31mxxx")
	require.Less(t, len(ask("").Error()), 1200)
	answer = func(w http.ResponseWriter) {
		w.Header().Set("Location", "https://elsewhere.example")
		w.WriteHeader(302)
	}
	require.ErrorContains(t, ask(""), "it points to https://elsewhere.example: give that as --server")
	answer = func(w http.ResponseWriter) { _, _ = w.Write([]byte("[")) }
	require.ErrorContains(t, ask(""), "the answer is not one of this version")
	answer = func(http.ResponseWriter) { panic(http.ErrAbortHandler) }
	require.ErrorContains(t, ask(""), "is `capture serve` running there? --server names another address")
}

// The audit log says who has used a command.
func TestACommandSaysWhoUsesIt(t *testing.T) {
	me, unknown := user.Current()
	var actor string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		actor = r.Header.Get(endpoint.ActorHeader)
	}))
	defer server.Close()
	c, err := clientWith(client.Own{}, "--server", server.URL)
	require.NoError(t, err)
	_, err = c.Do(t.Context(), client.Request{Method: http.MethodGet, Path: "/"})
	require.NoError(t, err)
	require.Equal(t, unknown == nil && me.Username != "", actor != "")
}

func TestAServiceThatHangsIsGivenUp(t *testing.T) {
	gone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-gone }))
	defer server.Close()
	defer close(gone)
	c, err := clientWith(client.Own{}, "--server", server.URL, "--timeout", "20ms")
	require.NoError(t, err)
	_, err = c.Do(t.Context(), client.Request{Method: http.MethodGet, Path: "/"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "no answer from "+server.URL)
}
