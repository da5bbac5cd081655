//go:build chaos && linux

package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/proof"
)

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
	*process.Process
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
		mode: mode, dir: dir, spool: filepath.Join(dir, "spool"), url: "http://" + address(process.FreePort()),
		admin: "http://" + address(process.FreePort()),
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
	s.Process, err = process.Start(s.dir, s.log(), s.environ, append(append([]string{}, s.wrap...), path, "serve")...)
	s.serving.Store(time.Now().UnixNano())
	return err
}

func (s *service) binary() (string, error) {
	if s.path != "" {
		return s.path, nil
	}
	return stock()
}

// stopPatience is more than app.stop_timeout, within which the service has to end.
const stopPatience = 3 * time.Minute

// kill and terminate end the process, and the watcher is told before.
func (s *service) kill() {
	s.serving.Store(0)
	s.Kill()
}

func (s *service) terminate() error {
	s.serving.Store(0)
	return s.Terminate(stopPatience)
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
const startPatience = 3 * time.Minute

// awaitAnswer returns when the service answers 200 at a path.
func (s *service) awaitAnswer(path string) error {
	err := process.Poll(startPatience, 5*time.Millisecond, func() (bool, error) {
		if err := s.Ended(); err != nil {
			return false, err
		}
		status, _, err := process.Get(s.url + path)
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
	metrics, err := process.Metrics(s.admin)
	return metrics[name], err
}

// awaitDrain returns when the spool is empty.
func (s *service) awaitDrain(patience time.Duration) error {
	var left float64
	err := process.Poll(patience, 50*time.Millisecond, func() (bool, error) {
		if err := s.Ended(); err != nil {
			return false, err
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

// binaryEnv names a binary other than that of this checkout.
const binaryEnv = "CAPTURE_CHAOS_BINARY"

// stock builds the stock binary once for all scenarios.
var stock = process.Stock(binaryEnv, func() string { return workplace })

// last waits as long as a fault lasts.
func last(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}
