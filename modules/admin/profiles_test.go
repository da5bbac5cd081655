package admin

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestProfilesAreServed(t *testing.T) {
	r := start(t, plan{})
	for path, want := range map[string]string{
		"/debug/pprof/":                     "Types of profiles available",
		"/debug/pprof/goroutine?debug=1":    "goroutine profile: total",
		"/debug/pprof/heap?debug=1&gc=1":    "heap profile:",
		"/debug/pprof/cmdline":              "admin.test",
		"/debug/pprof/symbol":               "num_symbols",
		"/debug/pprof/trace?seconds=0.01":   "go 1.",
		"/debug/pprof/allocs?debug=1":       "heap profile:",
		"/debug/pprof/threadcreate?debug=1": "threadcreate profile",
	} {
		got := r.get(t, path)
		require.Equal(t, http.StatusOK, got.status, path)
		require.Contains(t, got.body, want, path)
	}
	for _, path := range []string{"/debug/pprof/profile?seconds=1", "/debug/pprof/heap?seconds=1"} {
		got := r.get(t, path)
		require.Equal(t, http.StatusOK, got.status, path)
		require.Equal(t, "application/octet-stream", got.header.Get("Content-Type"), path)
		require.Equal(t, "\x1f\x8b", got.body[:2], "a profile is gzipped")
	}
	require.Contains(t, r.send(t, http.MethodPost, "/debug/pprof/symbol").body, "num_symbols")

	redirected := r.get(t, "/debug/pprof")
	require.Equal(t, http.StatusTemporaryRedirect, redirected.status)
	require.Equal(t, "/debug/pprof/", redirected.header.Get("Location"))
}

func TestAProfileMayRunLongerThanItsWritingAndItsReadingMayTake(t *testing.T) {
	r := start(t, plan{settings: map[string]string{"read_timeout": "500ms", "write_timeout": "500ms"}})
	began := time.Now()
	for _, path := range []string{"/debug/pprof/profile?seconds=1", "/debug/pprof/trace?seconds=1"} {
		got := r.get(t, path)
		require.Equal(t, http.StatusOK, got.status, got.body)
	}
	require.GreaterOrEqual(t, time.Since(began), 2*time.Second, "neither was cut short")
}

func TestTheSecondsOfAProfileAreLimited(t *testing.T) {
	r := start(t, plan{})
	for _, path := range []string{"/debug/pprof/profile", "/debug/pprof/trace", "/debug/pprof/heap"} {
		for _, seconds := range []string{"61", "60.1", "1e9", "0", "-1", "NaN", "Inf", "-Inf", "1e999", "9223372037",
			"long", "0x1p0", "1_0", "1e0", "0.5"} {
			if seconds == "0.5" && path == "/debug/pprof/trace" {
				continue // a trace may run for half a second
			}
			got := r.get(t, path+"?seconds="+seconds)
			require.Equal(t, http.StatusBadRequest, got.status, "%s %s", path, seconds)
			require.Contains(t, got.body, "seconds must be a number of more than 0 and at most 60")
		}
	}
}

// profile starts a profile and returns once it is running. The channel gets its answer.
func (r *running) profile(ctx context.Context, t *testing.T, path string) <-chan response {
	t.Helper()
	answered := make(chan response, 1)
	go func() {
		got := response{status: http.StatusConflict}
		// The traces that profileBecomes takes may be running.
		for got.status == http.StatusConflict {
			var err error
			if got, err = r.try(ctx, http.MethodGet, path, nil); err != nil {
				got.body = err.Error()
			}
		}
		answered <- got
	}()
	r.profileBecomes(t, http.StatusConflict)
	return answered
}

// profileBecomes waits until a short trace is answered with this status.
func (r *running) profileBecomes(t *testing.T, status int) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, err := r.try(t.Context(), http.MethodGet, "/debug/pprof/trace?seconds=0.001", nil)
		return err == nil && got.status == status
	}, patience, 5*time.Millisecond)
}

func TestAProfileEndsWithItsClientAndOneRunsAtATime(t *testing.T) {
	r := start(t, plan{})
	for _, path := range []string{"/debug/pprof/profile?seconds=60", "/debug/pprof/profile",
		"/debug/pprof/trace?seconds=60", "/debug/pprof/heap?seconds=60"} {
		began := time.Now()
		ctx, leave := context.WithCancel(t.Context())
		answered := r.profile(ctx, t, path)
		for _, second := range []string{"/debug/pprof/profile?seconds=1", "/debug/pprof/trace",
			"/debug/pprof/allocs?seconds=1"} {
			got := r.get(t, second)
			require.Equal(t, http.StatusConflict, got.status)
			require.Contains(t, got.body, "another profile is running: ask again when it has ended")
		}
		require.Equal(t, http.StatusOK, r.get(t, "/debug/pprof/heap").status, "what takes no time is not held up")

		leave()

		require.Contains(t, (<-answered).body, "context canceled")
		r.profileBecomes(t, http.StatusOK)
		require.Less(t, time.Since(began), 25*time.Second, "the profile has ended before its time")
	}
}

func TestStopEndsARunningProfileEarly(t *testing.T) {
	r := start(t, plan{})
	answered := r.profile(t.Context(), t, "/debug/pprof/profile?seconds=60")

	require.NoError(t, r.Stop(t.Context()))

	got := <-answered
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.Equal(t, "\x1f\x8b", got.body[:2], "what was profiled until then is answered")
	require.Zero(t, r.logs.Len())
}
