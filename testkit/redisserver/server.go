//go:build linux

package redisserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencapture/capture/testkit/process"
)

// addrEnv is set where services run for the tests: see testkit/services.
const addrEnv = "CAPTURE_TEST_REDIS_ADDR"

// Integration skips the test unless services run for the tests. Where they do, a missing redis-server is a failure.
func Integration(t testing.TB) {
	t.Helper()
	if os.Getenv(addrEnv) == "" {
		t.Skip("needs " + addrEnv + ": make integration runs it")
	}
	if err := installed(); err != nil {
		t.Fatal(err)
	}
}

func installed() error {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return fmt.Errorf("%w: install Redis (Debian and Ubuntu: apt-get install redis-server)", err)
	}
	return nil
}

// Options say how the servers differ from a plain redis-server that keeps nothing on the disk.
type Options struct {
	// AppendOnly has the server keep every write in its file, so that it has them again after a kill.
	AppendOnly bool
	// TLS has the server speak nothing but TLS, with a certificate for 127.0.0.1.
	TLS bool
	// Users are further users, such as "capture on >secret ~capture:* &capture:* +@all". With users, the default user
	// needs the password Server.Password.
	Users []string
	// Lines are further lines of the configuration, such as "maxmemory 10mb".
	Lines []string

	// authority is what the servers of a group share. Nil: the server has one of its own. password is that of a
	// Sentinel.
	authority *authority
	password  string
}

// shared gives the options an authority in a directory, for a group of servers.
func (o Options) shared(dir string) (_ Options, err error) {
	if o.TLS {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return o, err
		}
		o.authority, err = newAuthority(dir)
	}
	return o, err
}

// Server is a redis-server, which may run or not. It keeps its address when it is started again.
type Server struct {
	// Addr is where the server listens.
	Addr string
	// Password is the default user's; empty without Options.Users.
	Password string
	// CAFile is the authority of the server's certificate, and TLS the configuration of a client that trusts it. Both
	// are empty without Options.TLS.
	CAFile string
	TLS    *tls.Config

	dir     string
	command []string
	port    int
	bus     int // the port that a Cluster's servers speak to each other on
	*process.Process
}

// Start starts a server and returns when it answers. The cleanup of t ends it.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	s, err := Open(t.TempDir(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// Open starts a server with its files in a directory, and returns when it answers.
func Open(dir string, options Options) (*Server, error) { return open(dir, options, "redis-server") }

// attempts is how often a server is started on another port if its port turns out to be taken.
const attempts = 5

// open starts a server, or with the further arguments a Sentinel.
func open(dir string, options Options, command ...string) (*Server, error) {
	if err := installed(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		s, err := prepare(dir, options, command...)
		if err != nil {
			return nil, err
		}
		err = s.Restart()
		if err == nil {
			return s, nil
		}
		if attempt == attempts || !strings.Contains(err.Error(), "Address already in use") {
			return nil, err
		}
		if err := os.Remove(s.log()); err != nil {
			return nil, err
		}
	}
}

// prepare writes the configuration of a server on a free port.
func prepare(dir string, options Options, command ...string) (*Server, error) {
	s := &Server{dir: dir, port: process.FreePort(), bus: process.FreePort()}
	s.Addr = address(s.port)
	s.command = append([]string{command[0], s.config()}, command[1:]...)
	lines := []string{
		"bind 127.0.0.1", "dir " + strconv.Quote(dir), "pidfile " + strconv.Quote(filepath.Join(dir, "pid")),
	}
	if sentinel := len(command) > 1; !sentinel {
		// A primary sends its data to a new replica at once, without a pause that gathers further replicas.
		lines = append(lines, `save ""`, "appendonly "+yes(options.AppendOnly), "repl-diskless-sync-delay 0",
			fmt.Sprint("cluster-port ", s.bus))
	}
	if options.TLS {
		authority := options.authority
		if authority == nil {
			var err error
			if authority, err = newAuthority(dir); err != nil {
				return nil, err
			}
		}
		s.CAFile, s.TLS = authority.file, authority.client()
		lines = append(lines, "port 0", fmt.Sprint("tls-port ", s.port), "tls-cert-file "+strconv.Quote(authority.file),
			"tls-key-file "+strconv.Quote(authority.key), "tls-ca-cert-file "+strconv.Quote(authority.file),
			"tls-auth-clients optional", "tls-replication yes", "tls-cluster yes")
	} else {
		lines = append(lines, fmt.Sprint("port ", s.port))
	}
	s.Password = options.password
	if len(options.Users) > 0 {
		s.Password = "administrator"
		lines = append(lines, "masterauth "+s.Password)
	}
	if s.Password != "" {
		lines = append(lines, "requirepass "+s.Password)
	}
	for _, user := range options.Users {
		lines = append(lines, "user "+user)
	}
	lines = append(lines, options.Lines...)
	return s, os.WriteFile(s.config(), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

func (s *Server) config() string { return filepath.Join(s.dir, "redis.conf") }
func (s *Server) log() string    { return filepath.Join(s.dir, "redis.log") }

// patience is how long a server may take to do what it was asked for. Sentinels that find that the machine has stood
// still for some seconds replace no primary for half a minute.
const patience = 2 * time.Minute

// Restart starts a server that does not run, and returns when it answers. Without AppendOnly the server has lost
// everything.
func (s *Server) Restart() (err error) {
	// What an earlier run has said is not for this one.
	if s.Process, err = process.Start(s.dir, s.log(), os.Environ(), s.command...); err != nil {
		return err
	}
	pid := fmt.Sprintf("process_id:%d\r\n", s.Pid())
	var info string
	var problem error
	err = process.Poll(patience, 5*time.Millisecond, func() (bool, error) {
		if err := s.Ended(); err != nil {
			return false, err
		}
		// Another server may have taken the port. A server that still loads its file answers INFO.
		info, problem = s.Info("everything")
		return strings.Contains(info, pid) && !strings.Contains(info, "loading:1\r\n"), nil
	})
	if err != nil {
		s.Kill()
		return fmt.Errorf("redis-server at %s: %w\n%s", s.Addr, errors.Join(err, problem), process.Tail(s.log()))
	}
	return nil
}

// Stop hangs the server: its connections stay open, and the kernel takes new ones, but nothing is answered.
func (s *Server) Stop() error { return s.Signal(syscall.SIGSTOP) }

// Continue lets a hung server go on.
func (s *Server) Continue() error { return s.Signal(syscall.SIGCONT) }

// Info returns the server's answer to INFO with a section.
func (s *Server) Info(section string) (string, error) {
	reply, err := s.Do("INFO", section)
	if err != nil {
		return "", err
	}
	text, ok := reply.(string)
	if !ok {
		return "", fmt.Errorf("the answer to INFO is %T", reply)
	}
	return text, nil
}

// InfoInt returns a number from the server's answer to INFO, such as used_memory of the section memory.
func (s *Server) InfoInt(section, name string) (int64, error) {
	info, err := s.Info(section)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(info) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), name+":"); found {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("INFO %s has no %s", section, name)
}

var errShape = errors.New("the answer has another shape than expected")
