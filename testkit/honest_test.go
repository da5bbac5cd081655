package testkit_test

import (
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/app/standard"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/testkit"
)

// The metrics of a service that has seen all kinds of traffic: each has a help, and each help of ours is a sentence.
func TestEveryMetricHasASentenceOfHelp(t *testing.T) {
	t.Parallel()
	service := testkit.Start(t, testkit.Set("warnings.enabled", "true"), testkit.Set("delivery.ack", "spool"),
		testkit.Set("routing.drop", "phc_dropped"))
	event := func(token, properties string) string {
		return `{"api_key":"` + token + `","event":"a","distinct_id":"u","properties":` + properties + `}`
	}
	recording := strings.Replace(event("phc_1", `{"$session_id":"s","$snapshot_data":[]}`), `"a"`, `"$snapshot"`, 1)
	for path, bodies := range map[string][]string{
		"/s/":                    {recording},
		"/e/":                    {event("phc_1", `{"n":NaN}`), event("phc_dropped", "{}"), "{"},
		"/batch/":                {`{"api_key":"phc_1","batch":[{"event":"a","distinct_id":"u"},{"event":"b"}]}`},
		"/nosuch":                {""},
		"/flags/":                {`{"token":"phc_1"}`},
		"/i/v1/analytics/events": {"{}"}, "/i/v0/ai/": {"x"}, "/i/v0/ai/otel/v1/traces": {"{}"}, "/i/v1/logs": {"{}"},
	} {
		for _, body := range bodies {
			service.Post(path, body, "Content-Type", "application/json", "Authorization", "Bearer phc_1")
		}
	}
	var page string
	service.Eventually("the metrics of the traffic", func() bool {
		page = service.Admin("/metrics").Body
		return !slices.ContainsFunc([]string{
			"warnings_sent_total", "events_rejected_total", "events_dropped_total", "delivery_spool_records",
		}, func(name string) bool { return !strings.Contains(page, "capture_"+name+"{") })
	})
	help := map[string]string{}
	for _, line := range regexp.MustCompile(`(?m)^# HELP (\S+) ?(.*)$`).FindAllStringSubmatch(page, -1) {
		help[line[1]] = line[2]
	}
	metrics := regexp.MustCompile(`(?m)^# TYPE (\S+) `).FindAllStringSubmatch(page, -1)
	require.Greater(t, len(metrics), 60)
	for _, metric := range metrics {
		text := help[metric[1]]
		require.NotEmpty(t, text, metric[1])
		if strings.HasPrefix(metric[1], "capture_") { // the others come with libraries
			require.Regexp(t, `^[A-Z0-9].* .*\.$`, text, metric[1])
			require.NotContains(t, text, metric[1], "a name is no help")
			require.NotContains(t, text, "does not describe it", metric[1])
		}
	}

	names := slices.Collect(maps.Keys(help))
	for name := range module.AllMetrics(standard.Modules()) { // also those of what the test does not use
		names = append(names, "capture_"+name)
	}
	word := regexp.MustCompile(`\bcapture_[a-z0-9_]+`)
	for page, text := range docsPages(t) {
		for _, name := range word.FindAllString(text, -1) {
			name = regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			known := slices.ContainsFunc(names, func(n string) bool { // the pages also name groups of metrics
				return n == name || strings.HasPrefix(n, strings.TrimSuffix(name, "_")+"_")
			})
			// A property of events, a metric that counts only failures, and keys in PostHog's Redis.
			known = known || name == "capture_internal" || name == "capture_events_failed_total" ||
				strings.HasPrefix(name, "capture_known_token")
			require.True(t, known, "%s: there is no metric %s", page, name)
		}
	}
}

func TestOnALaptopTheLogHasALineForEachEventAndNoneOfTheWiring(t *testing.T) {
	t.Parallel()
	overlay, err := filepath.Abs("../configs/dev.yaml")
	require.NoError(t, err)
	p := prepare(t)
	p.Args = append(p.Args, "--config", overlay)
	p.serve(t)
	for _, body := range []string{hello, `{"api_key":"phc_test","event":"nobody's"}`, "{"} {
		response, err := http.Post(p.url+"/e/", "application/json", strings.NewReader(body))
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
	}
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.wait(t))
	lines := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
	require.Less(t, len(lines), 40, "%s", p.stderr)
	require.NotContains(t, p.stderr.String(), "fx")
	count := func(pattern string) int { return len(regexp.MustCompile(pattern).FindAllString(p.stderr.String(), -1)) }
	require.Equal(t, 1, count(`DEBUG\tevents\t\S+\tevent accepted\t\{"event": "hello", `), "%s", p.stderr)
	require.Equal(t, 1, count(`DEBUG\tevents\t\S+\tevent rejected\t\{"event": "nobody's", `), "%s", p.stderr)
	require.Equal(t, 2, count(`(?:INFO|DEBUG)\ttransport\t\S+\trequest refused\t`), "%s", p.stderr)
}

// At the default level the log shows why requests are refused: a line of each kind, without the request's body, and
// with nothing in it that a terminal obeys.
func TestRefusedRequestsAreSeenAtTheDefaultLevel(t *testing.T) {
	t.Parallel()
	p := run(t)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for range 20 {
		for path, body := range map[string]string{
			"/e/": `{"api_key":"phc_geheim","event":`, "/%1b[2J%C2%9B": "geheim",
		} {
			response, err := client.Post(p.url+path, "application/json", strings.NewReader(body))
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.GreaterOrEqual(t, response.StatusCode, 400)
		}
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	require.NoError(t, err)
	_, err = io.WriteString(conn, "POST /e/ HTTP/1.1\r\nHost: a\r\nno header, geheim\r\n\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.Contains(t, string(answer), "400 Bad Request")
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.wait(t))
	log := p.stderr.String()
	require.Equal(t, 3, strings.Count(log, `"msg":"request refused"`), "%s", log)
	require.Contains(t, log, `"status":400,"path":"/e/","answer":"failed to parse request: `)
	require.Regexp(t, `"status":404,"path":"[^"]*","answer":"not found"`, log)
	require.NotContains(t, log, "geheim")
	require.NotContains(t, log, "\x1b")
	require.NotContains(t, log, "\u009b")
}

func TestTheBannerSaysThatKafkaIsNotThere(t *testing.T) {
	t.Parallel()
	away := freeAddress(t)
	p := run(t, "CAPTURE_KAFKA__BROKERS="+away)
	require.Contains(t, p.banner, "events to    Kafka at "+away+", topic clickhouse_events (not connected: ")
	require.Contains(t, p.banner, "connection refused")
	require.NotContains(t, run(t).banner, "not connected")
}

// A replay needs the topic of dead letters, and there is one beside the service's broker.
func TestAReplayBesideARunningServiceEndsWellAndAWrongDirectoryIsNamed(t *testing.T) {
	t.Parallel()
	service := run(t, "CAPTURE_ROUTING__DLQ=phc_test")
	response, err := http.Post(service.url+"/e/", "application/json", strings.NewReader(hello))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	command := func(line string) *process {
		p := prepare(t, "CAPTURE_EMBEDDED__KAFKA_LISTEN="+service.broker, "HOME="+t.TempDir())
		p.Dir = service.Dir
		p.Args = append(p.Args, strings.Fields(line)...)
		return p
	}
	began := time.Now()
	replay := command("dlq replay")
	output, err := replay.Output()
	require.NoError(t, err, "%s", replay.stderr)
	require.Regexp(t, `^events_dlq/\d/0 sent to clickhouse_events\n1 dead letters sent, 0 were refused`, string(output))
	require.Less(t, time.Since(began), patience)

	status := command("spool status")
	status.Dir = t.TempDir()
	require.Error(t, status.Run())
	resolved, err := filepath.EvalSymlinks(status.Dir)
	require.NoError(t, err)
	require.Contains(t, status.stderr.String(), "there is no directory "+resolved+"/data/spool")
	_, err = os.Stat(filepath.Join(status.Dir, "data"))
	require.ErrorIs(t, err, os.ErrNotExist, "looking makes no directory")
}
