//go:build powercut && linux

package powercut

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/opencapture/capture/testkit/process"
)

// service is the binary under test. It has a directory of its own as its working directory.
type service struct {
	*process.Service
	// trace is the file that records the system calls, if they are recorded. Then the process is the tracer.
	trace string
}

// accounts is what the name of the directory with the accounts of quotas ends with, behind the name of the service's
// own directory. The accounts lie in a file that is mapped into memory: no system call shows what is written there.
// They are not to outlast a power cut: after another boot of the machine, the service begins new ones.
const accounts = ".accounts"

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
	running, err := process.Serve(dir, output, append(environ, "CAPTURE_QUOTA__DIR="+dir+accounts), line...)
	if err != nil {
		return nil, err
	}
	return &service{Service: running, trace: trace}, nil
}

// patience is how long a test waits for an event that must come. A traced service takes long for everything.
const patience = 5 * time.Minute

// signal signals the service, not its tracer. The tracer ends with the service, when the recording is complete.
func (s *service) signal(signal syscall.Signal) error {
	if s.trace == "" {
		return s.Signal(signal)
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
	if s.Ended() != nil {
		return nil
	}
	return syscall.Kill(pid, signal)
}

// kill ends the service and returns when it is gone.
func (s *service) kill() {
	if s.signal(syscall.SIGKILL) != nil {
		s.Kill()
	}
	_ = s.Await(patience)
}

// terminate asks the service to end by itself.
func (s *service) terminate() error {
	if err := s.signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.Await(patience)
}

// The names of the delivery module's metrics.
const (
	metricLimit   = "capture_delivery_spool_max_bytes"
	metricRecords = "capture_delivery_spool_records"
	metricCorrupt = "capture_delivery_corrupt_records_total"
)

// drained returns the metrics when there is a spool and it is empty.
func (s *service) drained() (metrics map[string]float64, err error) {
	late := poll(func() (bool, error) {
		if metrics, err = process.Metrics(s.Admin); err != nil {
			return false, errors.Join(err, s.Ended())
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

// stock builds the stock binary once.
var stock = process.Stock(binaryEnv, func() string { return workplace })

// poll calls ask until it returns true or an error, or until patience is over.
func poll(ask func() (bool, error)) error { return process.Poll(patience, 5*time.Millisecond, ask) }
