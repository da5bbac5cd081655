package transport

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestRefusedRequestsAreSeenAtInfoAndAFloodOfThemIsCounted(t *testing.T) {
	core, logged := observer.New(zap.InfoLevel)
	r := newRefusals(zap.New(core))
	now := time.Unix(0, 0)
	r.now = func() time.Time { return now }
	bad := refused{"/batch", 400}
	for range 1000 {
		r.add(bad, "/batch/", "bad JSON", "r1", netip.MustParseAddr("203.0.113.7"))
	}
	r.add(refused{"/batch", 413}, "/batch/", strings.Repeat("é", 200), "r2", netip.MustParseAddr("203.0.113.7"))
	now = now.Add(refusalsEvery)
	r.add(bad, "/batch/", "bad JSON", "r3", netip.MustParseAddr("203.0.113.8"))

	lines := logged.All()
	require.Len(t, lines, 3)
	require.Equal(t, map[string]any{
		"status": int64(400), "path": "/batch/", "answer": "bad JSON", "client_ip": "203.0.113.7", "request_id": "r1",
		"more_like_this_before": int64(0),
	}, lines[0].ContextMap())
	require.Equal(t, strings.Repeat("é", 100)+"...", lines[1].ContextMap()["answer"])
	require.Equal(t, int64(999), lines[2].ContextMap()["more_like_this_before"])
	require.Equal(t, "r3", lines[2].ContextMap()["request_id"])

	r.add(bad, "/batch/", "bad JSON", "r4", netip.MustParseAddr("203.0.113.8"))
	now = now.Add(refusalsEvery)
	r.add(bad, "/batch/", "bad JSON", "r5", netip.MustParseAddr("203.0.113.8"))
	require.Equal(t, int64(1), logged.All()[3].ContextMap()["more_like_this_before"], "each is counted once")
}

func TestTheRefusalsOfOnePathDoNotHideThoseOfAnother(t *testing.T) {
	core, logged := observer.New(zap.InfoLevel)
	r := newRefusals(zap.New(core))
	for _, path := range []string{"/batch", "/s", "/batch", "/s"} {
		r.add(refused{path, 400}, path, "bad JSON", "r1", netip.MustParseAddr("203.0.113.7"))
	}
	require.Equal(t, 2, logged.Len())
}

func TestLevelDebugShowsEveryRefusedRequest(t *testing.T) {
	core, logged := observer.New(zap.DebugLevel)
	r := newRefusals(zap.New(core))
	for range 10 {
		r.add(refused{"", 404}, "/wp-login.php", "not found", "r1", netip.MustParseAddr("203.0.113.7"))
	}
	require.Equal(t, 10, logged.Len())
}

func TestTheLogSaysWithWhichStatusARequestWasRefusedAlsoIfNoHandlerHasSeenIt(t *testing.T) {
	core, logged := observer.New(zap.InfoLevel)
	f := serveLogged(t, nil, zap.New(core))
	for i, sent := range []string{
		"GET  / HTTP/1.1\r\n\r\n", request("GET", "/nosuch", "", ""), request("POST", "/e/", "", "{"),
	} {
		response, body := f.dial(t).send("GET", sent)
		lines := logged.FilterMessage("request refused").All()
		require.Len(t, lines, i+1, sent)
		line := lines[i].ContextMap()
		require.EqualValues(t, response.StatusCode, line["status"])
		require.Equal(t, body, line["answer"])
		require.Equal(t, "127.0.0.1", line["client_ip"])
	}
}
