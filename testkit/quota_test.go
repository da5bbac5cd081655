package testkit_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
)

// someEvents is the body of a request with so many events of a token.
func someEvents(token string, n int) string {
	event := `{"event":"e","distinct_id":"u","properties":{}}`
	return `{"api_key":"` + token + `","batch":[` + strings.TrimSuffix(strings.Repeat(event+",", n), ",") + `]}`
}

// A quota holds in the real service, over a restart, and what was not stored is given back.
func TestAQuotaHoldsInTheRealService(t *testing.T) {
	t.Parallel()
	dir, sink := t.TempDir(), testkit.NewSink()
	start := func() *testkit.Service {
		return testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("quota.quotas", "events=10/month"),
			testkit.Set("quota.dir", dir+"/quota"), testkit.Set("store.dir", dir+"/store"))
	}
	service := start()
	sink.FailNext(1)
	require.Equal(t, 503, service.Post("/batch", someEvents("phc_a", 6)).Status)
	require.Equal(t, 200, service.Post("/batch", someEvents("phc_a", 6)).Status, "what failed was given back")
	require.Len(t, sink.Events(), 6)
	require.NoError(t, service.Stop())

	service = start()
	require.Equal(t, `{"status":"Ok"}`, service.Post("/batch", someEvents("phc_a", 6)).Body)
	require.Len(t, sink.Events(), 10, "four of six")
	require.Equal(t, `{"status":"Ok","quota_limited":["events"]}`, service.Post("/batch", someEvents("phc_a", 6)).Body)
	require.Equal(t, `{"status":"Ok"}`, service.Post("/batch", someEvents("phc_b", 6)).Body)
	service.Eventually("the metrics tell of the events over the quota", func() bool {
		return strings.Contains(service.Admin("/metrics").Body,
			`capture_quota_events_total{outcome="over_quota",resource="events"} 8`)
	})
	require.Contains(t, service.Admin("/admin/quota").Body, `"journal": "`+dir+`/quota/accounts"`)
}

// The limits of all projects change while the service runs.
func TestLimitsChangeLive(t *testing.T) {
	t.Parallel()
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("quota.quotas", "events=2/month"))
	require.Equal(t, 200, service.Post("/batch", someEvents("phc_a", 5)).Status)
	require.Len(t, sink.Events(), 2)
	require.NoError(t, service.Set("quota.quotas=events=4/month"))
	require.Equal(t, 200, service.Post("/batch", someEvents("phc_a", 5)).Status)
	require.Len(t, sink.Events(), 4)
	require.ErrorContains(t, service.Set("quota.quotas=events=4/week"), "the period must be one of")
}

// What is over a rate goes to the overflow topic, to any partition.
func TestEventsOverARateAreMovedOutOfTheWay(t *testing.T) {
	t.Parallel()
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("quota.rates", "events=1/h burst=3"))
	require.Equal(t, 200, service.Post("/batch", someEvents("phc_a", 5)).Status)
	var moved []bool
	for _, event := range sink.Events() {
		moved = append(moved, event.Routing.Overflow && event.Routing.Unkeyed)
	}
	require.Equal(t, []bool{false, false, false, true, true}, moved)
}

// Requests at the same time, which share their draws, pass exactly a quota.
func TestManyRequestsPassExactlyAQuota(t *testing.T) {
	t.Parallel()
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("quota.quotas", "events=500/month"),
		testkit.Set("quota.on_store_failure", "closed"))
	done := make(chan error)
	for worker := range 8 {
		go func() {
			var err error
			for i := range 25 {
				var response testkit.Response
				response, err = service.TryRequest("POST", "/batch", someEvents("phc_a", 1+(worker+i)%7))
				if err == nil && response.Status != 200 {
					err = fmt.Errorf("%d: %s", response.Status, response.Body)
				}
				if err != nil {
					break
				}
			}
			done <- err
		}()
	}
	for range 8 {
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(time.Minute):
			t.Fatal("the requests hang")
		}
	}
	require.Len(t, sink.Events(), 500)
}
