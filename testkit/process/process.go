//go:build linux

package process

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

// Process is a program that runs in the background. Its methods are safe for concurrent use.
type Process struct {
	// Output is the file with what the program has printed.
	Output string

	command *exec.Cmd
	exited  chan struct{} // closed when the process has ended, with err
	err     error
}

// Start starts a program in a directory and appends its output to a file. The program does not outlive this one.
func Start(dir, output string, environ []string, command ...string) (*Process, error) {
	file, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	p := &Process{Output: output, command: exec.Command(command[0], command[1:]...), exited: make(chan struct{})}
	p.command.Dir, p.command.Env, p.command.Stdout, p.command.Stderr = dir, environ, file, file
	// The program has a process group of its own, so that the terminal's interrupt reaches it only through this
	// program.
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	panics.Go(zap.NewNop(), "the wait for a program", func() {
		p.err = p.command.Wait()
		close(p.exited)
	})
	return p, nil
}

// Pid returns the process's id.
func (p *Process) Pid() int { return p.command.Process.Pid }

// Signal sends the process a signal.
func (p *Process) Signal(signal syscall.Signal) error { return p.command.Process.Signal(signal) }

// Kill ends the process and returns when it is gone.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.exited
}

// Ended returns nil while the process runs. After that it returns an error with the end of the program's output.
func (p *Process) Ended() error {
	select {
	case <-p.exited:
		return fmt.Errorf("the process has ended: %w\n%s", cmp.Or(p.err, errOrderly), Tail(p.Output))
	default:
		return nil
	}
}

var errOrderly = errors.New("exit code 0")

// Await waits for the end of the process. It returns nil if the process ends with exit code 0.
func (p *Process) Await(patience time.Duration) error {
	select {
	case <-p.exited:
		return p.err
	case <-time.After(patience):
		return fmt.Errorf("the process has not ended in %s", patience)
	}
}

// Terminate asks the process to end, and returns an error unless it ends in time and with exit code 0.
func (p *Process) Terminate(patience time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.Await(patience)
}

// The figures of a process's resident memory.
const (
	Resident    = "VmRSS" // at present
	MaxResident = "VmHWM" // the most ever
)

// Memory returns a figure of the process's memory, in bytes.
func (p *Process) Memory(figure string) (int64, error) {
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

// Tail returns the last lines of a file, or why it cannot.
func Tail(path string) string {
	const lines = 30
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
