package admin

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/endpoint"
)

func TestOnlyAddressesLocalhostAndConfiguredNamesAreAnsweredToAsHost(t *testing.T) {
	r := start(t, plan{settings: map[string]string{"hosts": "capture.internal,Pod-0."}})
	for host, want := range map[string]int{
		"127.0.0.1":                200,
		"127.0.0.1:8001":           200,
		"10.1.2.3:80":              200, // the Host behind a port-forward or a published port
		"[::1]":                    200,
		"[::1]:8001":               200,
		"[2001:DB8::1]:8001":       200,
		"[fe80::1%25eth0]:8001":    200, // the zone of an address is not a host's name
		"localhost":                200,
		"LocalHost:8001":           200,
		"localhost.":               200,
		"localhost.:8001":          200,
		"capture.internal":         200,
		"CAPTURE.internal.:9":      200,
		"pod-0":                    200,
		"":                         421,
		":8001":                    421,
		"evil.example":             421,
		"evil.example:8001":        421,
		"localhost.evil.example":   421,
		"evil.localhost":           421,
		"localhost..":              421,
		"127.0.0.1.evil.example":   421,
		"127.0.0.1.nip.io":         421,
		"127.0.0.1.":               421,
		"127.1":                    421,
		"2130706433":               421,
		"0x7f.0.0.1":               421,
		"[evil.example]:8001":      421,
		"capture.internal.evil":    421,
		"sub.capture.internal":     421,
		"localhost,evil.example":   421,
		"evil.example:8001:80":     421,
		"evil.example%25127.0.0.1": 421,
	} {
		got := read(t, r.dial(t, "GET /healthz HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"))
		require.Equal(t, want, got.status, "%q", host)
		if want == 421 {
			var problem api.Problem
			require.NoError(t, json.Unmarshal([]byte(got.body), &problem))
			require.Contains(t, problem.Detail, "admin.hosts", host)
			require.Contains(t, problem.Detail, fmt.Sprintf("%q", host))
			require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
		}
	}
}

func TestNoPathIsAnsweredToAnotherHost(t *testing.T) {
	r := start(t, plan{})
	for _, path := range []string{"/", "/metrics", "/healthz", "/readyz", "/debug/pprof/", "/debug/pprof",
		"/admin/reload", "/nonsense", "//metrics"} {
		require.Equal(t, http.StatusMisdirectedRequest, r.get(t, path, "Host", "evil.example").status, path)
	}
	// The Host of a request to a proxy is that of its target, whatever the header says.
	got := read(t, r.dial(t,
		"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
	require.Equal(t, http.StatusMisdirectedRequest, got.status)
	got = read(t, r.dial(t, "GET /healthz HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"))
	require.Equal(t, http.StatusMisdirectedRequest, got.status, "with an empty Host")
	got = read(t, r.dial(t, "GET /healthz HTTP/1.0\r\n\r\n"))
	require.Equal(t, http.StatusOK, got.status, "an old probe says no Host, and no browser is as old")
	got = read(t, r.dial(t, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n"+
		"Connection: close\r\n\r\n"))
	require.Equal(t, http.StatusBadRequest, got.status)
}

func TestAPageWhoseNameWasPointedAtTheListenerGetsNothing(t *testing.T) {
	r := start(t, plan{})
	const site = "evil.example:8001"
	for _, test := range [][2]string{{http.MethodPost, "/admin/reload"}, {http.MethodGet, "/admin/reload"},
		{http.MethodGet, "/debug/pprof/heap"}} {
		// To the browser, all of these addresses are one site.
		got := r.send(t, test[0], test[1], "Host", site, "Origin", "http://"+site, "Sec-Fetch-Site", "same-origin")
		require.Equal(t, http.StatusMisdirectedRequest, got.status, test)
	}
	require.Equal(t, r.live.Status().Since, r.live.Status().Loaded, "nothing was reloaded")
}

func TestANewNameHoldsWithoutARestart(t *testing.T) {
	r := start(t, plan{})
	require.Equal(t, http.StatusMisdirectedRequest, r.get(t, "/healthz", "Host", "capture.internal").status)
	r.set("hosts", "capture.internal")
	r.reload(t)
	require.Equal(t, http.StatusOK, r.get(t, "/healthz", "Host", "capture.internal").status)
}

// kinds returns one endpoint for each access.
func kinds() []endpoint.Endpoint {
	var all []endpoint.Endpoint
	for _, access := range []endpoint.Access{endpoint.Anyone, endpoint.Reader, endpoint.Operator} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			all = append(all, endpoint.Endpoint{
				Pattern: method + " /test/" + access.String(), About: "A test.", Access: access,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = w.Write([]byte(r.Pattern))
				}),
			})
		}
	}
	return all
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestWhoMayUseWhat(t *testing.T) {
	const token = "a-token_of+an/operator="
	here := &net.TCPAddr{IP: net.ParseIP("127.0.0.1"), Port: 4}
	for _, test := range []struct {
		name          string
		token         string
		peer          string
		header        []string
		anyone        int
		reads, writes int
	}{
		{"nothing, here", "", "127.0.0.1", nil, 200, 200, 200},
		{"nothing, here in another notation", "", "127.9.9.9", nil, 200, 200, 200},
		{"nothing, here by IPv6", "", "::1", nil, 200, 200, 200},
		{"nothing, here by IPv4 in IPv6", "", "::ffff:127.0.0.1", nil, 200, 200, 200},
		{"nothing, elsewhere", "", "10.0.0.9", nil, 200, 200, 403},
		{"nothing, elsewhere by IPv6", "", "2001:db8::9", nil, 200, 200, 403},
		{"a header that says here", "", "10.0.0.9", []string{"X-Forwarded-For", "127.0.0.1", "Forwarded",
			"for=127.0.0.1", "X-Real-IP", "127.0.0.1"}, 200, 200, 403},
		{"a header that says elsewhere", "", "127.0.0.1", []string{"X-Forwarded-For", "10.0.0.9"}, 200, 200, 200},
		{"a token where none is asked for", "", "10.0.0.9", []string{"Authorization", "Bearer x"}, 200, 200, 403},
		{"an empty token where none is asked for", "", "10.0.0.9", []string{"Authorization", "Bearer "}, 200, 200, 403},

		{"token missing, here", token, "127.0.0.1", nil, 200, 401, 401},
		{"token missing, elsewhere", token, "10.0.0.9", nil, 200, 401, 401},
		{"bearer, elsewhere", token, "10.0.0.9", []string{"Authorization", "Bearer " + token}, 200, 200, 200},
		{"bearer in small letters", token, "10.0.0.9", []string{"Authorization", "bearer " + token}, 200, 200, 200},
		{"bearer after two spaces", token, "10.0.0.9", []string{"Authorization", "Bearer  " + token}, 200, 200, 200},
		{"password of anybody", token, "10.0.0.9", []string{"Authorization", basic("me", token)}, 200, 200, 200},
		{"password of nobody", token, "10.0.0.9", []string{"Authorization", basic("", token)}, 200, 200, 200},
		{"wrong bearer", token, "127.0.0.1", []string{"Authorization", "Bearer " + token + "x"}, 200, 401, 401},
		{"beginning of the token", token, "127.0.0.1", []string{"Authorization", "Bearer " + token[:5]}, 200, 401, 401},
		{"empty bearer", token, "127.0.0.1", []string{"Authorization", "Bearer "}, 200, 401, 401},
		{"wrong password", token, "127.0.0.1", []string{"Authorization", basic("me", "x")}, 200, 401, 401},
		{"token as the user", token, "127.0.0.1", []string{"Authorization", basic(token, "")}, 200, 401, 401},
		{"broken basic", token, "127.0.0.1", []string{"Authorization", "Basic " + token}, 200, 401, 401},
		{"token alone", token, "127.0.0.1", []string{"Authorization", token}, 200, 401, 401},
		{"masked token", token, "127.0.0.1", []string{"Authorization", "Bearer ******"}, 200, 401, 401},
		{"token in another header", token, "127.0.0.1", []string{"X-Token", token}, 200, 401, 401},
	} {
		here.IP = net.ParseIP(test.peer)
		r := start(t, plan{settings: map[string]string{"token": test.token}, endpoints: kinds(), peer: here})
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			for access, want := range map[string]int{"anyone": test.anyone, "reader": test.reads,
				"operator": test.writes} {
				got := r.send(t, method, "/test/"+access, test.header...)
				require.Equal(t, want, got.status, "%s: %s %s: %s", test.name, method, access, got.body)
				switch want {
				case 200:
					require.Equal(t, method+" /test/"+access, got.body)
				case 401:
					require.Equal(t, []string{`Bearer realm="capture"`, `Basic realm="capture"`},
						got.header.Values("WWW-Authenticate"))
					require.Contains(t, got.body, "admin.token")
				case 403:
					require.Contains(t, got.body, "without admin.token this works from loopback only")
				}
				require.False(t, test.token != "" && strings.Contains(got.body, test.token))
			}
		}
	}
}

func TestAnEndpointThatDoesNotSayItsAccessIsForOperators(t *testing.T) {
	silent := endpoint.Endpoint{Pattern: "GET /silent", About: "A test.", Handler: http.NotFoundHandler()}
	r := start(t, plan{endpoints: []endpoint.Endpoint{silent}, peer: &net.TCPAddr{IP: net.ParseIP("10.0.0.9")}})
	require.Equal(t, http.StatusForbidden, r.get(t, "/silent").status)
	require.Equal(t, []string{"operator", "reader", "anyone", "unknown"}, []string{
		endpoint.Operator.String(), endpoint.Reader.String(), endpoint.Anyone.String(), endpoint.Access(9).String(),
	})
}

func TestTheEndpointsOfTheListenerHaveTheirAccess(t *testing.T) {
	r := start(t, plan{settings: map[string]string{"token": "secret"}})
	for path, want := range map[string]int{
		"/metrics": 200, "/healthz": 200, "/readyz": 503,
		"/": 401, "/admin/reload": 401, "/debug/pprof/": 401, "/debug/pprof/cmdline": 401, "/debug/pprof/symbol": 401,
		"/debug/pprof/profile": 401, "/debug/pprof/trace": 401, "/debug/pprof/heap": 401, "/debug/pprof/nonsense": 401,
	} {
		require.Equal(t, want, r.get(t, path).status, path)
	}
	require.Equal(t, 401, r.send(t, http.MethodPost, "/admin/reload").status)

	r = start(t, plan{peer: &net.TCPAddr{IP: net.ParseIP("10.0.0.9")}})
	for path, want := range map[string]int{
		"/metrics": 200, "/": 200, "/admin/reload": 200,
		"/debug/pprof/": 200, "/debug/pprof/cmdline": 200, "/debug/pprof/symbol": 200,
		"/debug/pprof/profile": 403, "/debug/pprof/trace": 403, "/debug/pprof/heap": 403,
		"/debug/pprof/goroutine?debug=2": 403,
	} {
		require.Equal(t, want, r.get(t, path).status, path)
	}
	require.Equal(t, 403, r.send(t, http.MethodPost, "/admin/reload").status)
}

func TestANewTokenHoldsWithoutARestart(t *testing.T) {
	r := start(t, plan{settings: map[string]string{"token": "old"}})
	shows := func(token string) int { return r.get(t, "/", "Authorization", "Bearer "+token).status }
	require.Equal(t, []int{200, 401}, []int{shows("old"), shows("new")})
	r.set("token", "new")
	got := r.send(t, http.MethodPost, "/admin/reload", "Authorization", "Bearer old")
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, []int{401, 200}, []int{shows("old"), shows("new")})
}

func TestWhatAnotherSiteHasABrowserSendIsRefusedIfItChangesOrCosts(t *testing.T) {
	r := start(t, plan{endpoints: kinds()})
	own := "http://" + r.port()
	for _, test := range []struct {
		name   string
		header []string
		// reads is the status of a GET of a reader's endpoint, costs that of a GET of an operator's endpoint, and posts
		// that of a POST to any endpoint.
		reads, costs, posts int
	}{
		{"no browser", nil, 200, 200, 200},
		{"typed by a person", []string{"Sec-Fetch-Site", "none"}, 200, 200, 200},
		{"a page of the listener", []string{"Sec-Fetch-Site", "same-origin", "Origin", own}, 200, 200, 200},
		{"a link of another site, over plain HTTP", []string{"Referer", "http://evil.example/page"}, 200, 403, 403},
		{"a page of another site", []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://evil.example"},
			200, 403, 403},
		{"an image of another site", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"},
			200, 403, 403},
		{"a page of another port here", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://localhost:3000"},
			200, 403, 403},
		{"a sandboxed page", []string{"Sec-Fetch-Site", "cross-site", "Origin", "null"}, 200, 403, 403},
		{"an old browser on another site", []string{"Origin", "http://evil.example"}, 200, 403, 403},
		{"an old browser on a page of the listener", []string{"Origin", own}, 200, 200, 200},
		{"a site of tomorrow", []string{"Sec-Fetch-Site", "somewhere"}, 200, 403, 403},
	} {
		for access, want := range map[string][2]int{
			"anyone": {test.reads, test.posts}, "reader": {test.reads, test.posts},
			"operator": {test.costs, test.posts},
		} {
			for i, method := range []string{http.MethodGet, http.MethodPost} {
				got := r.send(t, method, "/test/"+access, test.header...)
				require.Equal(t, want[i], got.status, "%s: %s %s: %s", test.name, method, access, got.body)
				if want[i] == 403 {
					require.Contains(t, got.body, "another site must not have a browser do this")
				}
			}
		}
	}
}

func TestABrowserOfAnotherSiteTakesNoProfileAndReloadsNothing(t *testing.T) {
	r := start(t, plan{settings: map[string]string{"token": "secret"}})
	// Once an operator has shown the token, the operator's browser adds it to every request by itself.
	header := []string{"Authorization", basic("me", "secret"), "Sec-Fetch-Site", "cross-site", "Referer",
		"http://evil.example/"}
	for _, path := range []string{
		"/debug/pprof/profile", "/debug/pprof/trace", "/debug/pprof/heap?gc=1", "/debug/pprof/goroutine?debug=2",
		"/debug/pprof/allocs?seconds=1",
	} {
		require.Equal(t, http.StatusForbidden, r.get(t, path, header...).status, path)
		require.Equal(t, http.StatusForbidden, r.send(t, http.MethodHead, path, header...).status, path)
	}
	require.Equal(t, http.StatusForbidden, r.send(t, http.MethodPost, "/admin/reload", header...).status)
	require.Equal(t, r.live.Status().Since, r.live.Status().Loaded, "nothing was reloaded")
}
