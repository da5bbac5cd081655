package testkit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/app/standard"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/terminal"
)

// beside runs a command beside the service, with the configuration of the service, and returns what it prints and its
// exit code.
func (p *process) beside(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	command := exec.CommandContext(t.Context(), path, args...)
	command.Dir = p.Dir
	command.Env = append(append([]string{}, p.Env...), "CAPTURE_EMBEDDED__KAFKA_LISTEN="+p.broker,
		"CAPTURE_TRANSPORT__LISTEN="+strings.TrimPrefix(p.url, "http://"))
	return result(t, command)
}

// result runs a command to its end.
func result(t *testing.T, command *exec.Cmd) (code int, out, errs string) {
	t.Helper()
	var printed, said bytes.Buffer
	command.Stdout, command.Stderr = &printed, &said
	err := command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), printed.String(), said.String()
	}
	require.NoError(t, err)
	return 0, printed.String(), said.String()
}

func TestAnEventFromTheCommandLineIsSeenToArrive(t *testing.T) {
	t.Parallel()
	p := run(t)
	code, out, errs := p.beside(t, "send", "--token", "phc_test", "--event", "signed_up", "--distinct-id", "user-1",
		"--property", "plan=pro", "--property", "seats=3", "--property", "zip=012", "--property", "note=")
	require.Zero(t, code, errs)
	require.Regexp(t, `^status  ack    uuid\n200     kafka  [0-9a-f-]{36}\n$`, out)
	id := strings.Fields(out)[5]

	code, out, errs = p.beside(t, "tail", "--no-follow")
	require.Zero(t, code, errs)
	require.Regexp(t, `^\S+ \S+  signed_up +user-1 +`+id+
		`  note=""  plan=pro  seats=3  zip=012  \(clickhouse_events/0/0\)\n$`, out)
	code, out, errs = p.beside(t, "tail", "--no-follow", "--format", "json", "--event", "signed_up")
	require.Zero(t, code, errs)
	var line struct {
		Value struct {
			Data struct{ Properties map[string]any }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(out), &line))
	got := line.Value.Data.Properties
	require.Subset(t, got, map[string]any{"plan": "pro", "seats": 3.0, "zip": "012", "note": ""})
	code, out, errs = p.beside(t, "tail", "--no-follow", "--event", "other")
	require.Zero(t, code)
	require.Empty(t, out)
	require.Contains(t, errs, "nothing with the event other is in Kafka: ")

	code, out, errs = p.beside(t, "send", "--token", "phc_test", "--event", "x", "--distinct-id", "u",
		"--host", p.url+"/", "--output", "json")
	require.Zero(t, code, errs)
	require.Regexp(t, `^{"status":200,"ack":"kafka","uuid":"[0-9a-f-]{36}"}\n$`, out)
}

func TestAnEventThatIsNotTakenIsNotCalledSent(t *testing.T) {
	t.Parallel()
	p := run(t)
	event := []string{"send", "--token", "phc_test", "--event", "x", "--distinct-id", "u"}
	for want, test := range map[string]struct {
		code int
		args []string
	}{
		"the service answered 401: ": {1, []string{"--token", "phx_personal"}},
		"the service answered 404: ": {1, []string{"--host", p.url + "/no/such/path"}},
		"no answer from http://127.0.0.1:1/i/v0/e/: dial tcp 127.0.0.1:1: connect: connection refused: is `capture " +
			"serve` running there?\n": {1, []string{"--host", "127.0.0.1:1"}},
		"--event is empty":                                            {2, []string{"--event", ""}},
		"--property wants NAME=VALUE, got \"x\"":                      {2, []string{"--property", "x"}},
		"--property wants NAME=VALUE, got \"=x\"":                     {2, []string{"--property", "=x"}},
		"--timeout must be positive":                                  {2, []string{"--timeout", "0s"}},
		"--host must be a URL such as http://localhost:8000, without": {2, []string{"--host", "http://u:hunter2@h"}},
	} {
		code, _, errs := p.beside(t, append(event, test.args...)...)
		require.Equal(t, test.code, code, errs)
		require.Contains(t, errs, want)
		require.NotContains(t, errs, "hunter2")
		require.Equal(t, 1, strings.Count(errs, "\n"), errs)
	}
}

func TestARedirectIsNotFollowedAndSaysWhereItPoints(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	defer elsewhere.Close()
	here := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", elsewhere.URL)
		w.WriteHeader(http.StatusPermanentRedirect)
	}))
	defer here.Close()
	code, _, errs := result(t, prepare(t).with("healthcheck", "--host", here.URL))
	require.Equal(t, 1, code)
	require.Equal(t, "the service answered 308: Permanent Redirect: it points to "+elsewhere.URL+
		": give that as --host\n", errs)
	require.False(t, followed.Load())
}

func TestAnAnswerOfSomethingElseIsReadInPartAndNotTrusted(t *testing.T) {
	t.Parallel()
	status := make(chan int, 2)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(<-status)
		_, _ = w.Write(bytes.Repeat([]byte("<"), 1<<20)) // the command may have read enough
	}))
	defer other.Close()
	event := []string{"send", "--token", "phc_test", "--event", "x", "--distinct-id", "u", "--host", other.URL}
	status <- http.StatusNotFound
	code, _, errs := result(t, prepare(t).with(event...))
	require.Equal(t, 1, code)
	require.Contains(t, errs, "the service answered 404: <<<")
	require.Less(t, len(errs), 65<<10)
	status <- http.StatusOK
	code, _, errs = result(t, prepare(t).with(event...))
	require.Zero(t, code)
	require.Contains(t, errs, "nothing says that the event is kept")
}

func TestAHealthCheckNeedsNoShell(t *testing.T) {
	t.Parallel()
	p := run(t)
	for _, args := range [][]string{{}, {"--live"}, {"--host", p.url}, {"--timeout", "30s"}} {
		code, out, errs := p.beside(t, append([]string{"healthcheck"}, args...)...)
		require.Zero(t, code, errs)
		require.NotEmpty(t, out)
	}
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close() //nolint:errcheck // nobody was accepted
	code, _, errs := p.beside(t, "healthcheck", "--host", silent.Addr().String(), "--timeout", "50ms")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no answer from http://"+silent.Addr().String())

	p.Env = append(p.Env, "CAPTURE_OBSERVABILITY__LOG__LEVEL=loud", "CAPTURE_KAFKA__BROKERS=nowhere", "CAPTURE_X__Y=z")
	code, out, errs := p.beside(t, "healthcheck", "--config", "no/such/file.yaml")
	require.Zero(t, code, "the service may run on although its configuration has faults by now: %s", errs)
	require.Equal(t, "ok\n", out)
	code, _, _ = p.beside(t, "tail")
	require.Equal(t, 1, code, "any other command wants a sound configuration")

	away := run(t, "CAPTURE_DELIVERY__ACK=kafka", "CAPTURE_KAFKA__BROKERS=127.0.0.1:1")
	code, _, errs = away.beside(t, "healthcheck")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "the service answered 503: ")
	code, _, errs = away.beside(t, "healthcheck", "--live")
	require.Zero(t, code, errs)

	for listen, asked := range map[string]string{
		":1": "127.0.0.1:1", "0.0.0.0:1": "127.0.0.1:1", "[::]:1": "127.0.0.1:1", "[fe80::1%lo]:1": "[fe80::1%25lo]:1",
	} {
		other := prepare(t)
		other.Env = append(other.Env, "CAPTURE_TRANSPORT__LISTEN="+listen)
		code, _, errs = result(t, other.with("healthcheck"))
		require.Equal(t, 1, code)
		require.Contains(t, errs, "no answer from http://"+asked+"/_readiness: ", listen)
	}

	code, _, errs = result(t, prepare(t).with("healthcheck"))
	require.Equal(t, 1, code)
	require.Equal(t, "transport.listen has port 0, so the port is not known: give --host\n", errs)
}

// with returns the process with these arguments.
func (p *process) with(args ...string) *exec.Cmd {
	p.Args = append(p.Args, args...)
	return p.Cmd
}

// What a client sends must not reach the terminal of an operator, whichever command or log shows it.
func TestNoCommandPrintsWhatATerminalObeys(t *testing.T) {
	t.Parallel()
	const hostile = "\x1b]0;owned\x07\u009b2J\x7f\u202e\u2066\u200e\u061c\u2028\u2029\r\n\tforged"
	p := run(t, "CAPTURE_ROUTING__DLQ=phc_dead", "CAPTURE_OBSERVABILITY__LOG__FORMAT=console",
		"CAPTURE_OBSERVABILITY__LOG__LEVEL=debug")
	for _, token := range []string{"phc_test", "phc_dead"} {
		code, _, errs := p.beside(t, "send", "--token", token, "--event", "e"+hostile, "--distinct-id", "u"+hostile,
			"--property", "p"+hostile+"="+hostile, "--property", "$current_url="+hostile)
		require.Zero(t, code, errs)
	}
	for _, line := range []string{
		"tail --no-follow", "tail --no-follow --format json", "dlq list", "dlq list --output json", "dlq show",
		"dlq replay --dry-run", "dlq replay", "spool status", "spool status --output json", "healthcheck",
		"config print",
	} {
		_, out, errs := p.beside(t, strings.Fields(line)...)
		require.NotEmpty(t, out+errs, line)
		require.Equal(t, out, string(terminal.EscapeLines([]byte(out))), line)
		require.Equal(t, errs, string(terminal.EscapeLines([]byte(errs))), line)
		for text := range strings.Lines(out) {
			require.NotRegexp(t, `^\s*forged`, text, line)
			if strings.Contains(line, "json") || line == "dlq show" {
				require.True(t, json.Valid([]byte(text)), "%s: %s", line, text)
			}
		}
	}
	code, _, errs := p.beside(t, "spool", "drop", hostile)
	require.Equal(t, 2, code)
	require.Equal(t, errs, string(terminal.EscapeLines([]byte(errs))))
	require.NoError(t, p.Process.Signal(os.Interrupt))
	require.NoError(t, p.wait(t))
	log := p.stderr.String()
	require.NotEmpty(t, log)
	require.Equal(t, log, string(terminal.EscapeLines([]byte(log))))
}

func TestOnlyTheUserOfTheServiceCanReadItsFiles(t *testing.T) {
	t.Parallel()
	p := run(t, "CAPTURE_DELIVERY__ACK=spool")
	code, _, errs := p.beside(t, "send", "--token", "phc_test", "--event", "x", "--distinct-id", "u")
	require.Zero(t, code, errs)
	require.NoError(t, p.Process.Signal(os.Interrupt))
	require.NoError(t, p.wait(t))
	files := 0
	data := filepath.Join(p.Dir, "data")
	require.NoError(t, filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		require.NoError(t, err)
		found, err := entry.Info()
		require.NoError(t, err)
		require.Zero(t, found.Mode().Perm()&0o077, "%s: %s", path, found.Mode())
		if !entry.IsDir() {
			files++
		}
		return nil
	}))
	require.Greater(t, files, 3)
}

func TestTheServiceDoesNotUseDataThatOthersCanWriteTo(t *testing.T) {
	t.Parallel()
	open := filepath.Join(t.TempDir(), "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	code, _, errs := result(t, prepare(t, "CAPTURE_EMBEDDED__DATA_DIR="+open).with())
	require.Equal(t, 1, code)
	require.Contains(t, errs, "embedded did not start: embedded.data_dir: all users of this machine can write to "+open)
	require.Contains(t, errs, "chmod o-w "+open)

	code, _, errs = result(t, prepare(t, "CAPTURE_DELIVERY__SPOOL__DIR="+open).with("spool", "drop", "events"))
	require.Equal(t, 1, code)
	require.Contains(t, errs, "chmod o-w "+open)
	entries, err := os.ReadDir(open)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// TestNoCommandShowsASecret gives every key a URL with a password in it, where that is a fault and where it is none.
func TestNoCommandShowsASecret(t *testing.T) {
	t.Parallel()
	keys, err := configs.Keys(sections())
	require.NoError(t, err)
	var everywhere []string
	for _, line := range strings.Split(commandLines(t), "\n") {
		everywhere = append(everywhere, strings.TrimPrefix(line, "capture "))
	}
	require.Contains(t, everywhere, "dlq replay")
	faults := map[string]bool{}
	try := func(key, value, line string) {
		p := prepare(t)
		p.Env = append(p.Env, "CAPTURE_"+strings.ToUpper(strings.ReplaceAll(key, ".", "__"))+"="+value)
		code, out, errs := result(t, p.with(strings.Fields(line)...))
		require.NotContains(t, out+errs, "hunter2", "%s=%s: capture %s", key, value, line)
		if line == "config validate" {
			faults[key] = faults[key] || code != 0
		}
	}
	for _, key := range keys {
		for _, value := range []string{"https://user:hunter2@host:80/?key=hunter2", "user:hunter2@host:9092"} {
			try(key, value, "config validate")
		}
		if !faults[key] {
			try(key, "https://user:hunter2@host:80/?key=hunter2", "config print")
		}
	}
	require.Greater(t, len(faults), 60)
	for _, key := range []string{"kafka.brokers", "transport.upstream", "transport.listen", "admin.listen",
		"embedded.kafka_listen", "kafka.sasl.token_command", "kafka.tls.ca_file"} {
		require.True(t, faults[key], key)
	}
	try("transport.listen", "user:hunter2@host:9092", "healthcheck")
	for _, key := range []string{"kafka.brokers", "transport.upstream"} {
		for _, value := range []string{
			"kafka://user:hunter2@host:9092", "hunter2@host:9092", "https://host/?key=hunter2",
		} {
			try(key, value, "config validate --output json")
			try(key, value, "serve")
		}
		for _, line := range everywhere {
			if !strings.HasPrefix(line, "completion") && !strings.HasPrefix(line, "help") {
				try(key, "user:hunter2@host:9092", strings.ReplaceAll(line, "TOPIC", "events"))
			}
		}
	}
}

// commandLines returns the lines of all commands of the stock build, as docs/commands.md lists them.
func commandLines(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/commands.md")
	require.NoError(t, err)
	var lines []string
	for line := range strings.Lines(string(text)) {
		if rest, is := strings.CutPrefix(line, "| `capture"); is {
			command, _, _ := strings.Cut(rest, "`")
			lines = append(lines, "capture "+strings.TrimSpace(command))
		}
	}
	return strings.Join(lines, "\n")
}

// sections are the sections of the configuration of the stock build.
func sections() (all []configs.Section) {
	for _, m := range standard.Modules() {
		all = append(all, configs.Section{Name: m.Name, Defaults: m.Config})
	}
	return all
}
