//go:build sdk

package sdk

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/testkit"
)

// The scenarios. Drivers know them by these names.
const (
	// basic is every kind of call that the SDK has.
	basic = "basic"
	// retry is 40 events of 4 users; the first two requests are answered 503.
	retry = "retry"
	// dropped is the same, but the connection of the first request is cut.
	dropped = "dropped"
	// unheard is the same once more. Each request is stored and its answer is lost, so it is sent again.
	unheard = "unheard"
	// halving is 64 events in a request that holds about 20 at most.
	halving = "halving"
)

// driver is a row of the table: a version of an SDK in one of its modes, and the scenarios that it can pass.
type driver struct {
	sdk, version, mode string
	// path is where its events arrive, which proves the mode.
	path      string
	scenarios []string
}

const (
	batch = "/batch"
	v1    = "/i/v1/analytics/events"
)

var drivers = []driver{
	{"posthog-node", "5.70.0", "v0", batch, []string{basic, retry, dropped, unheard, halving}},
	// In this mode a batch that is answered 413 is given up.
	{"posthog-node", "5.70.0", "v1", v1, []string{basic, retry, dropped, unheard}},
	{"posthog-node", "4.18.0", "v0", batch, []string{basic, retry, dropped, unheard, halving}},
	// This one sends a batch that is answered 413 again as a whole.
	{"posthog-node", "3.6.3", "v0", batch, []string{basic, retry, dropped, unheard}},

	{"posthog-js-lite", "4.12.1", "json", batch, []string{basic, retry, dropped, unheard, halving}},
	{"posthog-js-lite", "3.6.0", "json", batch, []string{basic, retry, dropped, unheard, halving}},
	// In this mode the SDK sees no status and takes every answer for success.
	{"posthog-js-lite", "3.6.0", "form", "/e", []string{basic, dropped, unheard}},

	{"posthog-go", "1.23.1", "v0", batch, []string{basic, retry, dropped, unheard}},
	{"posthog-go", "1.23.1", "v0+gzip", batch, []string{basic}},
	{"posthog-go", "1.23.1", "v1", v1, []string{basic, retry, dropped, unheard}},
	{"posthog-go", "1.23.1", "v1+gzip", v1, []string{basic}},
	{"posthog-go", "1.23.1", "v1+deflate", v1, []string{basic}},
	{"posthog-go", "1.23.1", "v1+br", v1, []string{basic}},
	{"posthog-go", "1.23.1", "v1+zstd", v1, []string{basic}},
	{"posthog-go", "1.5.2", "v0", batch, []string{basic, retry, dropped, unheard}},

	{"posthog-python", "7.91.1", "v0", batch, []string{basic, retry, dropped, unheard}},
	{"posthog-python", "7.91.1", "v0+gzip", batch, []string{basic}},
	{"posthog-python", "7.91.1", "v1", v1, []string{basic, retry, dropped, unheard}},
	{"posthog-python", "5.4.0", "v0", batch, []string{basic, retry, dropped, unheard}},

	{"posthog-js", "1.449.2", "v0", "/i/v0/e", []string{basic, retry, dropped, unheard}},
	{"posthog-js", "1.200.2", "v0", "/i/v0/e", []string{basic, retry, dropped, unheard}},
	{"posthog-js", "1.57.4", "v0", "/e", []string{basic, retry, dropped, unheard}},
	// This one sends nothing again.
	{"posthog-js", "1.0.6", "v0", "/e", []string{basic}},
}

// command is how the driver is started, and what its environment has beside what every driver is told.
func (d driver) command(t *testing.T) (command, environ []string) {
	switch d.sdk {
	case "posthog-node":
		return []string{"node", "node/node.mjs"}, []string{"CAPTURE_SDK_MODULES=" + installed(t, "CAPTURE_SDK_NODE")}
	case "posthog-js-lite":
		return []string{"node", "node/lite.mjs"}, []string{"CAPTURE_SDK_MODULES=" + installed(t, "CAPTURE_SDK_NODE")}
	case "posthog-js":
		return []string{"node", "browser/driver.mjs"},
			[]string{"CAPTURE_SDK_MODULES=" + installed(t, "CAPTURE_SDK_BROWSER")}
	case "posthog-go":
		return []string{filepath.Join(installed(t, "CAPTURE_SDK_GO"), d.version)}, nil
	case "posthog-python":
		for _, venv := range filepath.SplitList(installed(t, "CAPTURE_SDK_PYTHON")) {
			if version, directory, _ := strings.Cut(venv, "="); version == d.version {
				return []string{filepath.Join(directory, "bin", "python"), "python/driver.py"}, nil
			}
		}
	}
	t.Fatalf("install.sh installs no %s %s", d.sdk, d.version)
	return nil, nil
}

// patience is how long a driver may take: many times as long as it takes on a machine that has nothing else to do.
const patience = 15 * time.Minute

// installed returns what install.sh has named.
func installed(t *testing.T, variable string) string {
	value := os.Getenv(variable)
	require.NotEmpty(t, value, "%s is not set: these tests are run by make sdk-e2e, which installs what they need",
		variable)
	return value
}

// row is what the table says about a driver in a scenario.
type row struct {
	driver
	scenario string
	result
	passed bool
	took   time.Duration
}

func TestWhatSDKsAreToldToSendIsInKafkaOnceAndInOrder(t *testing.T) {
	var (
		mu   sync.Mutex
		rows []row
	)
	// Cleanup runs when all the subtests have ended.
	t.Cleanup(func() { printTable(os.Stdout, rows) })
	for _, d := range drivers {
		for _, scenario := range d.scenarios {
			t.Run(strings.Join([]string{d.sdk, d.version, d.mode, scenario}, "/"), func(t *testing.T) {
				t.Parallel()
				r := row{driver: d, scenario: scenario}
				started := time.Now()
				defer func() {
					r.passed, r.took = !t.Failed(), time.Since(started)
					mu.Lock()
					defer mu.Unlock()
					rows = append(rows, r)
				}()
				r.result = play(t, d, scenario)
			})
		}
	}
}

// play runs a driver against a service of its own and says what became of its events.
func play(t *testing.T, d driver, scenario string) result {
	var faults []fault
	// Browsers up to posthog-js 1.200 send exceptions by themselves only if they are told to.
	options := []testkit.Option{
		testkit.Set("transport.setup.exceptions", "true"),
		testkit.Set("transport.setup.recording_endpoint", "/s/"),
		testkit.Set("transport.setup.recorder_bundled", "true"),
	}
	switch scenario {
	case retry:
		faults = []fault{unavailable, unavailable}
	case dropped:
		faults = []fault{cut}
	case halving:
		options = append(options, testkit.Set("transport.max_body", "48KiB"),
			testkit.Set("transport.max_decoded", "48KiB"))
	}
	service := testkit.Start(t, options...)
	proxy := newProxy(t, service.URL, scenario == unheard, faults...)

	script := scenario
	if scenario == unheard {
		script = dropped
	}
	output, err := d.run(t, proxy.url, script)
	announced, formatErr := readScript(output)
	require.NoError(t, formatErr)
	outcome := compare(announced, inKafka(t, service))
	if err != nil {
		t.Error(err)
	}
	const shown = 10
	for _, fault := range outcome.faults[:min(shown, len(outcome.faults))] {
		t.Error(fault)
	}
	if more := len(outcome.faults) - shown; more > 0 {
		t.Errorf("and %d more like these", more)
	}

	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	if outcome.sent == 0 {
		t.Error("the driver has told the SDK to send nothing")
	}
	if proxy.paths[d.path] == 0 {
		t.Errorf("no event was sent to %s, but to %s", d.path, slices.Sorted(maps.Keys(proxy.paths)))
	}
	if proxy.loses && proxy.answers[http.StatusOK] == 0 {
		t.Errorf("no answer of 200 was lost, but these: %v", proxy.answers)
	}
	if len(proxy.faults) > 0 {
		t.Errorf("%d of %d faults have met no request", len(proxy.faults), len(faults))
	}
	tooLarge := fmt.Sprintf("POST %s: 413 Request Entity Too Large", d.path)
	if scenario == halving && proxy.refused[tooLarge] == 0 {
		t.Error("no request was answered 413")
	}
	for _, refusal := range slices.Sorted(maps.Keys(proxy.refused)) {
		if scenario != halving || refusal != tooLarge {
			t.Errorf("the service has answered %s (%d times)", refusal, proxy.refused[refusal])
		}
	}
	return outcome
}

// run starts the driver, waits until it has ended, and returns what it has announced, also with an error.
func (d driver) run(t *testing.T, url, script string) ([]byte, error) {
	args, environ := d.command(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, args[0], args[1:]...)
	command.Env = append(os.Environ(),
		append(environ, "CAPTURE_URL="+url, "CAPTURE_TOKEN=phc_e2e", "CAPTURE_SCENARIO="+script,
			"CAPTURE_SDK_VERSION="+d.version, "CAPTURE_MODE="+d.mode)...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	// A browser's processes end with their driver.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 5 * time.Second
	err := command.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not ended after %s", patience)
	}
	if err != nil {
		const shown = 4000
		err = fmt.Errorf("the driver: %w\n%s", err, stderr.Bytes()[:min(shown, stderr.Len())])
	}
	return stdout.Bytes(), err
}

// inKafka reads every event that lies in the service's topics.
func inKafka(t *testing.T, service *testkit.Service) []stored {
	var all []stored
	for _, message := range service.Messages() {
		// What the service says about events is none. Against a real Kafka topics have a prefix.
		if strings.HasSuffix(message.Topic, kafka.DefaultConfig().Topics.ClientWarnings) {
			continue
		}
		envelope := message.Envelope
		event := stored{
			told: told{User: envelope.DistinctID, Event: envelope.Event}, topic: message.Topic,
			partition: message.Partition,
		}
		// A recording lies in Kafka under another name than SDKs send it by.
		if event.Event == "$snapshot_items" {
			event.Event = "$snapshot"
		}
		event.ID = idOf(t, envelope.Data)
		all = append(all, event)
	}
	return all
}

// idOf returns the property e2e_id of an event, which stands where the SDK's call puts the properties it is given.
func idOf(t *testing.T, data []byte) string {
	type withID struct {
		ID string `json:"e2e_id"`
	}
	type properties struct {
		withID
		Set      withID `json:"$set"`
		SetOnce  withID `json:"$set_once"`
		GroupSet withID `json:"$group_set"`
	}
	var event struct {
		properties
		Properties properties `json:"properties"`
	}
	require.NoError(t, json.Unmarshal(data, &event), "%s", data)
	in, top := event.Properties, event.properties
	return cmp.Or(in.ID, in.Set.ID, in.SetOnce.ID, in.GroupSet.ID, top.Set.ID, top.SetOnce.ID)
}

// printTable prints a line for each driver and scenario, in the order of the drivers.
func printTable(w io.Writer, rows []row) {
	slices.SortFunc(rows, func(a, b row) int {
		index := func(r row) int {
			return slices.IndexFunc(drivers,
				func(d driver) bool { return d.sdk == r.sdk && d.version == r.version && d.mode == r.mode })
		}
		return cmp.Or(index(a)-index(b), slices.Index(a.scenarios, a.scenario)-slices.Index(b.scenarios, b.scenario))
	})
	_, _ = fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "SDK\tversion\tmode\tscenario\tevents sent\tevents in "+
		"Kafka\tduplicates\tmisordered\tthe SDK's own\tseconds\t")
	for _, r := range rows {
		verdict := ""
		if !r.passed {
			verdict = "FAILED"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%.1f\t%s\n", r.sdk,
			r.version, r.mode, r.scenario,
			r.sent, r.kafka, r.duplicates, r.misordered, r.auto, r.took.Seconds(), verdict)
	}
	_ = table.Flush()
}
