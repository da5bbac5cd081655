//go:build chaos && linux

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencapture/capture/testkit/proof"
)

// process is a program that runs in the background.
type process struct {
	command *exec.Cmd
	exited  chan struct{} // closed when the process has ended, with err
	err     error
}

// spawn starts a program that appends its output to a file. The program does not outlive this one.
func spawn(dir, log string, environ []string, command ...string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	p := &process{command: exec.Command(command[0], command[1:]...), exited: make(chan struct{})}
	p.command.Dir, p.command.Env, p.command.Stdout, p.command.Stderr = dir, environ, file, file
	// The program has a process group of its own, so that the terminal's interrupt reaches it only through this
	// program.
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.command.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) signal(signal syscall.Signal) error { return p.command.Process.Signal(signal) }

// kill ends the process and returns when it is gone.
func (p *process) kill() {
	_ = p.signal(syscall.SIGKILL)
	<-p.exited
}

func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// stopPatience is more than app.stop_timeout, within which the service has to end.
const stopPatience = time.Minute

// terminate asks the process to end, and returns an error unless it ends with exit code 0.
func (p *process) terminate() error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return p.err
	case <-time.After(stopPatience):
		return fmt.Errorf("not ended %s after SIGTERM", stopPatience)
	}
}

// memory returns a figure of the process's memory in bytes: VmRSS, the present one, or VmHWM, the highest ever.
func (p *process) memory(figure string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, figure+":"); found {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no %s in the process's status", figure)
}

// The names of the delivery module's metrics.
const (
	metricRecords = "capture_delivery_spool_records"
	metricBytes   = "capture_delivery_spool_bytes"
	metricDrained = "capture_delivery_drain_records_total"
	metricCorrupt = "capture_delivery_corrupt_records_total"
)

// The ack modes.
const (
	modeKafka  = "kafka"
	modeSpool  = "spool"
	modeAuto   = "auto"
	modeMemory = "memory"
)

// service is the binary under test, with its own topics and directory. It may run several times, always at the same
// addresses.
type service struct {
	mode, dir, spool string
	prefix           string
	url, admin       string
	environ          []string
	// path is the binary. Empty: the stock binary.
	path string
	// wrap is the beginning of a command line that runs the binary.
	wrap []string
	*process
	// serving is the time since when the process runs and is not about to end, in nanoseconds since 1970. 0: it does
	// not run, or is about to end.
	serving atomic.Int64
	// answers holds the answers to the loads. watched is the watcher that compares them with the service's readiness.
	answers proof.Answers
	watched *watcher
}

// ackEnv is the variable of the ack mode, and letterLog the spool's directory of dead letters.
const (
	ackEnv    = "CAPTURE_DELIVERY__ACK="
	letterLog = "%40dead-letters"
)

// Topics' names have these ends. They begin with the service's prefix.
const (
	topicEvents   = "events"
	topicOther    = "other"
	topicDLQ      = "dlq"
	topicWarnings = "warnings"
)

// newService returns a service that is not started. Its topics are few, because one broker holds those of every
// scenario.
func newService(dir, mode string, kafka *cluster, environ ...string) (*service, error) {
	s := &service{
		mode: mode, dir: dir, spool: filepath.Join(dir, "spool"), url: "http://" + address(freePort()),
		admin: "http://" + address(freePort()),
	}
	if err := os.MkdirAll(s.spool, 0o750); err != nil {
		return nil, err
	}
	s.prefix = fmt.Sprintf("%s.%d.", strings.ReplaceAll(filepath.Base(filepath.Dir(dir)), "/", "-"),
		time.Now().UnixNano())
	s.environ = append(s.environ, "PATH="+os.Getenv("PATH"),
		"CAPTURE_TRANSPORT__LISTEN="+strings.TrimPrefix(s.url, "http://"),
		"CAPTURE_ADMIN__LISTEN="+strings.TrimPrefix(s.admin, "http://"),
		"CAPTURE_KAFKA__BROKERS="+strings.Join(kafka.addresses(), ","),
	)
	for _, topic := range []string{topicEvents, topicDLQ, "client_" + topicWarnings} {
		s.environ = append(s.environ, "CAPTURE_KAFKA__TOPICS__"+strings.ToUpper(topic)+"="+s.prefix+topic)
	}
	for _, topic := range []string{"RECORDINGS", "HISTORICAL", "EXCEPTIONS", "OVERFLOW", "RECORDINGS_OVERFLOW",
		"HEATMAPS", "AI", "LOGS"} {
		s.environ = append(s.environ, "CAPTURE_KAFKA__TOPICS__"+topic+"="+s.prefix+topicOther)
	}
	s.environ = append(s.environ, ackEnv+mode, "CAPTURE_DELIVERY__SPOOL__DIR="+s.spool)
	s.environ = append(s.environ, environ...)
	return s, nil
}

// log returns the file with the service's output, of all its runs.
func (s *service) log() string { return filepath.Join(s.dir, "capture.log") }

// start starts the service and does not wait for anything.
func (s *service) start() error {
	path, err := s.binary()
	if err != nil {
		return err
	}
	s.process, err = spawn(s.dir, s.log(), s.environ, append(append([]string{}, s.wrap...), path, "serve")...)
	s.serving.Store(time.Now().UnixNano())
	return err
}

func (s *service) binary() (string, error) {
	if s.path != "" {
		return s.path, nil
	}
	return stock()
}

// kill and terminate end the process like the methods of process.
func (s *service) kill() {
	s.serving.Store(0)
	s.process.kill()
}

func (s *service) terminate() error {
	s.serving.Store(0)
	return s.process.terminate()
}

// load starts a load on the service.
func (s *service) load(shape proof.Shape, rate float64) *proof.Load {
	return proof.StartLoad(s.url, shape, rate, &s.answers)
}

// setAck gives the service another ack mode, from its next start on.
func (s *service) setAck(mode string) {
	for i, text := range s.environ {
		if strings.HasPrefix(text, ackEnv) {
			s.environ[i] = ackEnv + mode
		}
	}
}

// letters shows the dead letters on the disk, as the service's command prints them.
func (s *service) letters(see func(id, reason string)) error {
	if _, err := os.Stat(filepath.Join(s.spool, letterLog)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	path, err := s.binary()
	if err != nil {
		return err
	}
	command := exec.Command(path, "dlq", "list", "--output", "json")
	command.Dir, command.Env = s.dir, s.environ
	output, err := command.Output()
	if err != nil {
		return fmt.Errorf("capture dlq list: %w", err)
	}
	for line := range bytes.Lines(output) {
		var letter struct{ ID, Reason, UUID string }
		if err := json.Unmarshal(line, &letter); err != nil {
			return fmt.Errorf("capture dlq list: %w: %s", err, line)
		}
		if strings.HasPrefix(letter.ID, "disk/") {
			see(letter.UUID, letter.Reason)
		}
	}
	return nil
}

// startPatience is how long a start may take. Without Kafka the service waits for kafka.connect_timeout.
const startPatience = 30 * time.Second

// awaitAnswer returns when the service answers 200 at a path.
func (s *service) awaitAnswer(path string) error {
	err := poll(startPatience, 5*time.Millisecond, func() (bool, error) {
		if s.ended() {
			return false, fmt.Errorf("the service has ended: %w", s.err)
		}
		status, _, err := get(s.url + path)
		return err == nil && status == http.StatusOK, nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// run starts the service and returns when it serves.
func (s *service) run() error {
	if err := s.start(); err != nil {
		return err
	}
	return s.awaitAnswer("/_liveness")
}

// restart kills the service and starts it again.
func (s *service) restart() error {
	s.kill()
	return s.start()
}

// metric returns a metric, as the sum over its labels; 0 if the service does not have it.
func (s *service) metric(name string) (float64, error) {
	_, body, err := get(s.admin + "/metrics")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(string(body)) {
		rest, found := strings.CutPrefix(line, name)
		if !found || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		line = strings.TrimSpace(line)
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum += value
	}
	return sum, nil
}

// awaitDrain returns when the spool is empty.
func (s *service) awaitDrain(patience time.Duration) error {
	var left float64
	err := poll(patience, 50*time.Millisecond, func() (bool, error) {
		if s.ended() {
			return false, fmt.Errorf("the service has ended: %w", s.err)
		}
		var err error
		left, err = s.metric(metricRecords)
		return err == nil && left == 0, nil
	})
	if err != nil {
		return fmt.Errorf("%.0f records in the spool: %w", left, err)
	}
	return nil
}

var client = &http.Client{Timeout: 10 * time.Second}

func get(url string) (int, []byte, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// binaryEnv names a binary other than that of this checkout.
const binaryEnv = "CAPTURE_CHAOS_BINARY"

// stock builds the stock binary, as it is shipped, once for all scenarios.
var stock = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(binaryEnv); path != "" {
		return path, nil
	}
	path := filepath.Join(workplace, "capture")
	output, err := exec.Command("go", "build", "-C", "../..", "-trimpath", "-o", path,
		"github.com/opencapture/capture").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	return path, nil
})

// errLate is the error of poll when the time is over.
var errLate = errors.New("not in time")

// poll calls ask until it returns true or an error, or until the time is over.
func poll(patience, interval time.Duration, ask func() (bool, error)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		if done, err := ask(); done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: waited %s", errLate, patience)
		}
	}
}

// last waits as long as a fault lasts.
func last(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// tail returns the last lines of a file.
func tail(path string) string {
	const lines = 30
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
