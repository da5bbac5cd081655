package testkit_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/testkit"
)

// workplace is a directory for all tests of this package.
var workplace string

// patience is how long a test waits before it says that something hangs. It is no measure of speed.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	var err error
	if workplace, err = os.MkdirTemp("", "capture-test"); err != nil {
		panic(err)
	}
	flag.Parse()
	if runsTests() {
		_, _ = binary() // The clock of -timeout starts with Run. Tests that need the binary report the error.
	}
	code := m.Run()
	_ = os.RemoveAll(workplace)
	os.Exit(code)
}

// runsTests reports whether the command line asks for tests to run, and not just for their names or for benchmarks.
func runsTests() bool {
	return flag.Lookup("test.list").Value.String() == "" && flag.Lookup("test.run").Value.String() != "^$"
}

// binaryEnv names the environment variable with the path of the stock binary that make has built.
const binaryEnv = "CAPTURE_TEST_BINARY"

// binary returns the path of the stock binary. If make has not built it, binary builds it once for all tests, with the
// flags of make build, so that both builds share one cache.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(binaryEnv); path != "" {
		return path, nil
	}
	path := filepath.Join(workplace, "capture")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/opencapture/capture")
	output, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	return path, nil
})

// process is a running binary.
type process struct {
	*exec.Cmd
	url, admin, broker string
	banner             string // what the process printed until its addresses were known
	stderr             *bytes.Buffer
	exited             chan struct{} // closed when the process has ended, with err
	err                error
}

var (
	operators = regexp.MustCompile(`metrics\s+(http://\S+)/metrics`)
	listening = regexp.MustCompile(`listening\s+(http://\S+)`)
	broker    = regexp.MustCompile(`events to\s+(?:embedded broker|Kafka) at ([^ ,]+)`)
)

// prepare returns a process that will run the binary on free ports, in a directory of its own.
func prepare(t *testing.T, environ ...string) *process {
	path, err := binary()
	require.NoError(t, err)
	p := &process{Cmd: exec.Command(path), stderr: new(bytes.Buffer), exited: make(chan struct{})}
	p.Dir = t.TempDir()
	p.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "CAPTURE_TRANSPORT__LISTEN=127.0.0.1:0", "CAPTURE_ADMIN__LISTEN=127.0.0.1:0",
		"CAPTURE_EMBEDDED__KAFKA_LISTEN=127.0.0.1:0",
		"CAPTURE_APP__START_TIMEOUT=2m", "CAPTURE_EMBEDDED__START_TIMEOUT=1m", // a busy machine is no fault
	}, environ...)
	p.Stderr = p.stderr
	return p
}

// start starts the process. The end of the test kills it.
func (p *process) start(t *testing.T) {
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.exited
	})
}

// run starts the binary on free ports and returns when the process has printed its addresses.
func run(t *testing.T, environ ...string) *process {
	return prepare(t, environ...).serve(t)
}

// serve starts the process and returns it when it has printed its addresses.
func (p *process) serve(t *testing.T) *process {
	stdout, err := p.StdoutPipe()
	require.NoError(t, err)
	p.start(t)
	lines := bufio.NewScanner(stdout)
	for p.url == "" || p.broker == "" || p.admin == "" {
		if !lines.Scan() {
			p.err = p.Wait()
			close(p.exited)
			t.Fatalf("the service did not start: %s", p.stderr)
		}
		p.banner += lines.Text() + "\n"
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			p.url = found[1]
		}
		if found := operators.FindStringSubmatch(lines.Text()); found != nil {
			p.admin = found[1]
		}
		if found := broker.FindStringSubmatch(lines.Text()); found != nil {
			p.broker = found[1]
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdout)
		p.err = p.Wait()
		close(p.exited)
	}()
	return p
}

// wait waits for the end of the process and returns its error.
func (p *process) wait(t *testing.T) error {
	select {
	case <-p.exited:
		return p.err
	case <-time.After(patience):
		t.Fatal("the process does not end")
		return nil
	}
}

// An acknowledged event is in Kafka, whatever signal ends the process in the middle of its work. Events in the spool
// are the subject of testkit/chaos.
func TestNoSignalLosesAnAcknowledgedEvent(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			brokers, prefix := os.Getenv(testkit.BrokersEnv), "t"+strings.ReplaceAll(uuid.NewString(), "-", "")
			data := filepath.Join(t.TempDir(), "data")
			p := run(t, "CAPTURE_DELIVERY__ACK=kafka", "CAPTURE_KAFKA__BROKERS="+brokers,
				"CAPTURE_KAFKA__TOPICS__EVENTS="+prefix, "CAPTURE_EMBEDDED__DATA_DIR="+data)

			var acknowledged sync.Map
			var count atomic.Int64
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			var load sync.WaitGroup
			for range 8 {
				load.Go(func() { post(ctx, p.url, &acknowledged, &count) })
			}
			require.Eventually(t, func() bool { return count.Load() > 2000 }, patience, time.Millisecond)
			require.NoError(t, p.Process.Signal(signal))
			err := p.wait(t)
			stop()
			load.Wait()
			if signal == syscall.SIGTERM {
				require.NoError(t, err, "%s", p.stderr)
			} else {
				require.ErrorContains(t, err, "killed")
			}

			// If the broker was inside the process, another process reads the broker's data.
			addresses := strings.Split(brokers, ",")
			if brokers == "" {
				addresses = []string{run(t, "CAPTURE_KAFKA__TOPICS__EVENTS="+prefix,
					"CAPTURE_EMBEDDED__DATA_DIR="+data).broker}
			}
			messages, err := testkit.ReadTopics(addresses, prefix)
			require.NoError(t, err)
			times := map[string]int{}
			for _, message := range messages {
				times[message.Envelope.UUID]++
			}
			acknowledged.Range(func(id, _ any) bool {
				require.Equal(t, 1, times[id.(string)], "an acknowledged event must be there exactly once: %s", id)
				return true
			})
			t.Logf("%d events acknowledged, %d in Kafka", count.Load(), len(messages))
		})
	}
}

// post sends batches of ten until the service is gone, and notes the ids of the batches that were answered 200.
func post(ctx context.Context, url string, acknowledged *sync.Map, count *atomic.Int64) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for {
		type event struct {
			UUID       string `json:"uuid"`
			Event      string `json:"event"`
			DistinctID string `json:"distinct_id"`
		}
		batch := make([]event, 10)
		for i := range batch {
			batch[i] = event{uuid.NewString(), "load", fmt.Sprint("user-", i)}
		}
		body, _ := json.Marshal(map[string]any{"api_key": "phc_test", "batch": batch})
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/batch/", bytes.NewReader(body))
		if err != nil {
			return
		}
		response, err := client.Do(request)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return
		}
		for i := range batch {
			acknowledged.Store(batch[i].UUID, true)
		}
		count.Add(int64(len(batch)))
	}
}

func TestTailPrintsWhatTheReadmesCurlSent(t *testing.T) {
	t.Parallel()
	p := run(t)
	response, err := http.Post(p.url+"/capture/", "application/x-www-form-urlencoded",
		strings.NewReader(`{"api_key":"phc_test","event":"hello","distinct_id":"me"}`))
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, `{"status":"Ok"}`, string(body))

	path, err := binary()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tail := exec.CommandContext(ctx, path, "tail", "--limit", "1", "--format", "json")
	tail.Dir = t.TempDir()
	tail.Env = []string{"CAPTURE_EMBEDDED__KAFKA_LISTEN=" + p.broker}
	output, err := tail.Output()
	require.NoError(t, err)
	var line struct {
		Topic string `json:"topic"`
		Key   string `json:"key"`
		Value struct {
			Event string `json:"event"`
			Data  struct {
				DistinctID string `json:"distinct_id"`
			} `json:"data"`
		} `json:"value"`
	}
	require.NoError(t, json.Unmarshal(output, &line), "%s", output)
	require.Equal(t, "clickhouse_events", line.Topic)
	require.Equal(t, "phc_test:me", line.Key)
	require.Equal(t, "hello", line.Value.Event)
	require.Equal(t, "me", line.Value.Data.DistinctID)
}

// A start that fails is reported once: the log does not repeat the error at the level at which the service runs.
func TestAStartThatFailsSaysSoOnce(t *testing.T) {
	t.Parallel()
	first := run(t)
	address := strings.TrimPrefix(first.url, "http://")
	port := address[strings.LastIndexByte(address, ':')+1:]
	inUse := address + ": address already in use: see who uses it with .*:" + port + ".*"
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, []byte("no certificate"), 0o600))
	for name, test := range map[string]struct{ environ, want string }{
		"the port of SDKs is in use": {
			"CAPTURE_TRANSPORT__LISTEN=" + address,
			"transport did not start: transport.listen: cannot listen on " + inUse,
		},
		"the port of operators is in use": {
			"CAPTURE_ADMIN__LISTEN=" + address,
			"admin did not start: admin.listen: cannot listen on " + inUse,
		},
		"the port of the broker is in use": {
			"CAPTURE_EMBEDDED__KAFKA_LISTEN=" + address,
			"embedded did not start: embedded.kafka_listen: cannot listen on " + inUse,
		},
		"another process has the data": {
			"CAPTURE_EMBEDDED__DATA_DIR=" + filepath.Join(first.Dir, "data"),
			"embedded did not start: embedded.data_dir: .*: another process uses this directory",
		},
		"a file of TLS is broken": {
			"CAPTURE_KAFKA__BROKERS=127.0.0.1:1 CAPTURE_KAFKA__TLS__ENABLED=true CAPTURE_KAFKA__TLS__CA_FILE=" + ca,
			"kafka.tls.ca_file: no certificate in .*",
		},
		"the configuration has a fault": {
			"CAPTURE_DELIVERY__ACK=nowhere",
			`delivery.ack: must be kafka, spool, auto, memory, got "nowhere" \(CAPTURE_DELIVERY__ACK\)`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := prepare(t, strings.Fields(test.environ)...)
			var out bytes.Buffer
			p.Stdout = &out
			p.start(t)
			go func() {
				p.err = p.Wait()
				close(p.exited)
			}()
			var exit *exec.ExitError
			require.ErrorAs(t, p.wait(t), &exit)
			require.Equal(t, 1, exit.ExitCode())
			require.Empty(t, out.String())
			var said []string
			for line := range strings.Lines(p.stderr.String()) {
				// A line at info may say that the service has connected to Kafka meanwhile.
				if !strings.HasPrefix(line, `{"level":"info"`) {
					said = append(said, line)
				}
			}
			require.Len(t, said, 1, "%s", p.stderr)
			require.Regexp(t, "^"+test.want+"\n$", said[0])
		})
	}
}

func TestTheBinaryTellsWrongUseFromFailure(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]int{
		"version": 0, "--version": 0, "help spool move": 0, "spool": 0, "spool status": 1, "completion bash": 0,
		"spool drop nothing": 1, "config validate --config no/such/file": 1,
		"spool stauts": 2, "spool drop": 2, "spool drop a/b": 2, "dlq list --filter colour=red": 2,
		"tail --from yesterday": 2, "tail --limit x": 2,
	} {
		p := prepare(t)
		p.Args = append(p.Args, strings.Fields(line)...)
		err := p.Run()
		if want == 0 {
			require.NoError(t, err, "%s: %s", line, p.stderr)
			continue
		}
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, line)
		require.Equal(t, want, exit.ExitCode(), "%s: %s", line, p.stderr)
		require.Equal(t, 1, strings.Count(p.stderr.String(), "\n"), "%s: %s", line, p.stderr)
		require.Equal(t, want == 2, strings.HasSuffix(p.stderr.String(), " --help)\n"), "%s: %s", line, p.stderr)
	}
}
