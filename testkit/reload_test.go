package testkit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/testkit"
)

// marker is two stages that check that one configuration judges a batch. The first stage marks the events with one live
// value; the last stage compares the mark with another live value, which must agree.
type marker struct {
	config *configs.Value[markerConfig]
	phase  events.Phase
	mixed  *atomic.Int64
	marked *atomic.Int64
}

type markerConfig struct {
	First string `key:"first" live:"true" doc:"What the first stage writes."`
	Last  string `key:"last" live:"true" doc:"What the last stage expects."`
	Fixed string `key:"fixed" doc:"What does not change live."`
}

// Validate refuses a configuration whose two values differ.
func (c markerConfig) Validate() error {
	var faults configs.Faults
	faults.Check(c.First == c.Last, "last", "must be the same as first, got %q and %q", c.First, c.Last)
	return faults.Err()
}

func (m *marker) Phase() events.Phase { return m.phase }
func (m *marker) Name() string        { return "marker" }

func (m *marker) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	config := m.config.In(batch.Config)
	for i := range batch.Events {
		switch event := &batch.Events[i]; {
		case m.phase == events.PhaseAuth:
			event.SessionID = config.First
		case event.SessionID != config.Last:
			m.mixed.Add(1)
		default:
			m.marked.Add(1)
		}
	}
	return func(_ context.Context, batch *events.Batch) {
		for i := range batch.Events {
			if batch.Events[i].SessionID != m.config.In(batch.Config).Last {
				m.mixed.Add(1)
			}
		}
	}, nil
}

// A hundred configurations come into force under load, and a hundred are refused. No request fails, no batch is judged
// by two configurations, and no goroutine is left behind.
func TestAHundredReloadsUnderLoadFailNoRequestAndMixNoBatch(t *testing.T) {
	var mixed, marked atomic.Int64
	stage := func(phase events.Phase) any {
		return events.AsStage(func(live *configs.Live) (events.Stage, error) {
			config, err := configs.Current[markerConfig](live)
			return &marker{config: config, phase: phase, mixed: &mixed, marked: &marked}, err
		})
	}
	service := testkit.Start(t,
		testkit.With(module.Module{
			Name: "marker", Config: markerConfig{},
			Options: fx.Provide(stage(events.PhaseAuth), stage(events.PhaseRoute+1)),
		}))
	body := `{"api_key":"phc_test","batch":[{"event":"a","distinct_id":"u"},{"event":"b","distinct_id":"u"}]}`
	require.Equal(t, 200, service.Post("/batch/", body).Status)

	usage := func() (goroutines int, heap uint64) {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return runtime.NumGoroutine(), stats.HeapAlloc
	}
	var failed, sent atomic.Int64
	var why atomic.Value // the last failure
	load := func() (stop func()) {
		done := make(chan struct{})
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					answer, err := service.TryRequest("POST", "/batch/", body)
					sent.Add(1)
					if err != nil || answer.Status != 200 {
						failed.Add(1)
						why.Store(fmt.Sprintf("%v %d %s %v", err, answer.Status, answer.Body, answer.Header))
					}
				}
			})
		}
		stop = sync.OnceFunc(func() { close(done); clients.Wait() })
		t.Cleanup(stop)
		return stop
	}
	bad := []struct{ setting, why string }{
		{"marker.last=other", "marker.last: must be the same as first"},
		{"marker.fixed=other", "marker.fixed: needs a restart"},
		{"transport.listen=:1", "transport.listen: needs a restart"},
		{"routing.topics=phc_a=vip", "kafka.topics.custom"},
		{"transport.max_header=1", "transport.max_header: must be from 4KiB"},
		{"delivery.ack=never", "delivery.ack: must be kafka"},
		{"transport.trusted_proxies=x", "transport.trusted_proxies"},
	}
	reload := func(i int) {
		n := strconv.Itoa(i)
		require.NoError(t, service.Set(
			"marker.first="+n, "marker.last="+n,
			"routing.drop=phc_"+n, "warnings.interval="+n+"m",
			"transport.setup.exceptions="+strconv.FormatBool(i%2 == 0),
			fmt.Sprintf("transport.max_body=%dMiB", 10+i%8), fmt.Sprintf("transport.idle_timeout=%ds", 60+i%2),
			"delivery.ack="+[]string{"auto", "spool", "kafka", "auto"}[i%4],
			fmt.Sprintf("delivery.spool.max_bytes=%dMiB", 100+i),
			fmt.Sprintf("delivery.drain.speed=%d", 2+i%5), "observability.log.level="+[]string{"error", "warn"}[i%2],
		))
		refused := bad[i%len(bad)]
		require.ErrorContains(t, service.Set(refused.setting, "warnings.interval=1h"), refused.why)
	}

	stop := load()
	for i := range 4 {
		reload(i + 1)
	}
	stop()
	goroutines, heap := usage()
	stop = load()
	for i := range 100 {
		reload(i + 5)
	}
	before := sent.Load()
	service.Eventually("requests after the last reload", func() bool { return sent.Load() > before+100 })
	stop()
	require.Zero(t, failed.Load(), "of %d requests: %v", sent.Load(), why.Load())
	require.Zero(t, mixed.Load())
	require.Greater(t, marked.Load(), 2*before)
	service.Eventually("the goroutines of before", func() bool {
		now, _ := usage()
		return now <= goroutines+4
	})
	_, now := usage()
	require.Less(t, now, heap+heap/4+(8<<20), "bytes of memory, after %d", heap)
	require.NotContains(t, service.Admin("/metrics").Body, "\ncapture_events_failed_total{")
}

func TestARuleForANewTopicComesIntoForceTogetherWithTheTopic(t *testing.T) {
	t.Parallel()
	service := testkit.Start(t)
	custom := "vip-" + uuid.NewString()
	require.ErrorContains(t, service.Set("routing.topics=phc_vip="+custom), "add it to kafka.topics.custom")
	require.NoError(t, service.Set("routing.topics=phc_vip="+custom, "kafka.topics.custom="+custom))
	require.Equal(t, 200, service.Post("/e/", `{"api_key":"phc_vip","event":"hello","distinct_id":"u"}`).Status)
	messages := service.Messages()
	require.Len(t, messages, 1)
	require.Equal(t, custom, messages[0].Topic)
}

// A certificate that cannot be read as one refuses the configuration before anything has changed.
func TestABrokenCertificateRefusesTheConfiguration(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(broken, []byte("no certificate"), 0o600))
	service := testkit.Start(t)
	err := service.Set("kafka.tls.enabled=true", "kafka.tls.ca_file="+broken, "warnings.interval=1h")
	require.ErrorContains(t, err, "ca_file")
	require.ErrorContains(t, service.Set("kafka.tls.ca_file=/no/such/file"), "kafka.tls.ca_file")
	require.Contains(t, service.Admin("/metrics").Body, "\ncapture_config_number 1\n")
	require.Equal(t, 200, service.Post("/e/", hello).Status)
}

func TestTheBinaryFollowsItsFileAndSIGHUP(t *testing.T) {
	path := filepath.Join(t.TempDir(), "capture.yaml")
	set := func(text string) {
		require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	set("transport: {setup: {exceptions: false}}\n")
	p := prepare(t)
	p.Args = append(p.Args, "serve", "--config", path)
	p.serve(t)
	told := func(exceptions string) func() bool {
		return func() bool {
			answer, err := http.Get(p.url + "/array/phc_test/config")
			require.NoError(t, err)
			body, err := io.ReadAll(answer.Body)
			require.NoError(t, errors.Join(err, answer.Body.Close()))
			require.Equal(t, 200, answer.StatusCode)
			return strings.Contains(string(body), `"autocaptureExceptions":`+exceptions)
		}
	}
	require.True(t, told("false")())
	set("transport: {setup: {exceptions: true}}\n")
	require.NoError(t, p.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, told("true"), patience, time.Millisecond)
	set("transport: {setup: {exceptions: false}}\n")
	require.Eventually(t, told("false"), patience, time.Millisecond, "the file is watched")
}

// Without a file nothing but the signal has the configuration loaded.
func TestSIGHUPHasTheConfigurationLoaded(t *testing.T) {
	p := prepare(t, "CAPTURE_OBSERVABILITY__LOG__LEVEL=info")
	p.serve(t)
	require.NoError(t, p.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool {
		answer, err := http.Get(p.admin + "/admin/reload")
		require.NoError(t, err)
		var status configs.Status
		require.NoError(t, errors.Join(json.NewDecoder(answer.Body).Decode(&status), answer.Body.Close()))
		return status.Loaded.After(status.Since)
	}, patience, time.Millisecond)
}
