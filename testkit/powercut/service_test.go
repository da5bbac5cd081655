//go:build powercut && linux

package powercut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// service is the binary under test. It has a directory of its own as its working directory.
type service struct {
	dir, output string
	command     *exec.Cmd
	exited      chan struct{} // closed when the service has ended, with err
	err         error
	// trace is the file that records the system calls, if they are recorded. Then command is the tracer.
	trace string
	// url and admin are the addresses that the service listens on. broker is the address of its embedded broker.
	url, admin, broker string
}

// serve starts the service and returns when it serves. If trace is not empty, that file records its system calls.
func serve(dir, output, trace string, environ []string) (*service, error) {
	path, err := stock()
	if err != nil {
		return nil, err
	}
	line := []string{path, "serve"}
	if trace != "" {
		strace, err := exec.LookPath("strace")
		if err != nil {
			return nil, fmt.Errorf("%w: install it (Debian and Ubuntu: apt-get install strace)", err)
		}
		// The service does not outlive its tracer, nor this program.
		line = slices.Concat([]string{strace}, Options(), []string{"-o", trace, "setpriv", "--pdeathsig", "KILL"}, line)
	}
	file, err := os.Create(output)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	s := &service{
		dir: dir, output: output, trace: trace, command: exec.Command(line[0], line[1:]...),
		exited: make(chan struct{}),
	}
	s.command.Dir, s.command.Stdout, s.command.Stderr = dir, file, file
	s.command.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "CAPTURE_TRANSPORT__LISTEN=127.0.0.1:0", "CAPTURE_ADMIN__LISTEN=127.0.0.1:0",
	}, environ...)
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.err = s.command.Wait()
		close(s.exited)
	}()
	if err := s.await(); err != nil {
		s.kill()
		return nil, fmt.Errorf("%w\n%s", err, tail(output))
	}
	return s, nil
}

// patience is how long a test waits for an event that must come. A traced service without Kafka takes seconds to start.
const patience = 30 * time.Second

var (
	saysURL    = regexp.MustCompile(`(?m)^listening +(http://\S+)$`)
	saysAdmin  = regexp.MustCompile(`(?m)^metrics +(http://\S+)/metrics$`)
	saysBroker = regexp.MustCompile(`(?m)^events to +embedded broker at (\S+) `)
)

// await returns when the service has said where it listens. The service says so when all its parts have started.
func (s *service) await() error {
	return poll(func() (bool, error) {
		output, err := os.ReadFile(s.output)
		if err != nil {
			return false, err
		}
		if admin := saysAdmin.FindSubmatch(output); admin != nil {
			url := saysURL.FindSubmatch(output)
			if url == nil {
				return false, errors.New("the service does not say where it listens")
			}
			s.url, s.admin = string(url[1]), string(admin[1])
			if broker := saysBroker.FindSubmatch(output); broker != nil {
				s.broker = string(broker[1])
			}
			return true, nil
		}
		return false, s.ended()
	})
}

// ended returns an error if the service has ended.
func (s *service) ended() error {
	select {
	case <-s.exited:
		return fmt.Errorf("the service has ended: %w", errors.Join(s.err, errors.New(tail(s.output))))
	default:
		return nil
	}
}

// signal signals the service, not its tracer. The tracer ends with the service, when the recording is complete.
func (s *service) signal(signal syscall.Signal) error {
	if s.trace == "" {
		return s.command.Process.Signal(signal)
	}
	file, err := os.Open(s.trace)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	// Every line begins with the id of a thread. The first thread of the process has the id of the process.
	var pid int
	if _, err := fmt.Fscan(file, &pid); err != nil {
		return fmt.Errorf("%s: %w", s.trace, err)
	}
	if s.ended() != nil {
		return nil
	}
	return syscall.Kill(pid, signal)
}

// kill ends the service and returns when it is gone.
func (s *service) kill() {
	if s.signal(syscall.SIGKILL) != nil {
		_ = s.command.Process.Kill()
	}
	<-s.exited
}

// terminate asks the service to end by itself.
func (s *service) terminate() error {
	if err := s.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.exited:
		return s.err
	case <-time.After(patience):
		return errors.New("the service does not end")
	}
}

// The names of the delivery module's metrics.
const (
	metricLimit   = "capture_delivery_spool_max_bytes"
	metricRecords = "capture_delivery_spool_records"
	metricCorrupt = "capture_delivery_corrupt_records_total"
)

var client = &http.Client{Timeout: 10 * time.Second}

// metrics returns the sums, over all labels, of the service's metrics.
func (s *service) metrics() (map[string]float64, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.admin+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	sums := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		end, start := strings.LastIndexByte(line, ' '), strings.IndexAny(line, " {")
		if strings.HasPrefix(line, "#") || end < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[end+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", line, err)
		}
		sums[line[:start]] += value
	}
	return sums, nil
}

// drained returns the metrics when there is a spool and it is empty.
func (s *service) drained() (metrics map[string]float64, err error) {
	late := poll(func() (bool, error) {
		if metrics, err = s.metrics(); err != nil {
			return false, errors.Join(err, s.ended())
		}
		_, opened := metrics[metricLimit]
		return opened && metrics[metricRecords] == 0, nil
	})
	if late != nil {
		return nil, fmt.Errorf("%.0f records in the spool: %w", metrics[metricRecords], late)
	}
	return metrics, nil
}

// binaryEnv names a binary other than that of this checkout.
const binaryEnv = "CAPTURE_POWERCUT_BINARY"

// stock builds the stock binary, as it is shipped, once.
var stock = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(binaryEnv); path != "" {
		return path, nil
	}
	path := filepath.Join(workplace, "capture")
	output, err := exec.Command("go", "build", "-trimpath", "-o", path,
		"github.com/opencapture/capture").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	return path, nil
})

// poll calls ask until it returns true or an error, or until patience is over.
func poll(ask func() (bool, error)) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		if done, err := ask(); done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s in vain", patience)
		}
	}
}

// tail returns the last lines of a file.
func tail(path string) string {
	const lines = 20
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
