//go:build linux

package redisserver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencapture/capture/testkit/process"
)

// Sentinel is a primary with replicas, and three Sentinels that put a replica in the place of a primary that is away
// for a second.
type Sentinel struct {
	// Master is the name by which the Sentinels know the primary.
	Master string
	// Servers are the primary, as it was at first, and its replicas. Sentinels have the password of Servers[0].
	Servers, Sentinels []*Server
}

const sentinels = 3

// StartSentinel starts a primary with replicas, and returns when all Sentinels know all of them. The cleanup of t ends
// them.
func StartSentinel(t testing.TB, replicas int, options Options) *Sentinel {
	t.Helper()
	s, err := OpenSentinel(t.TempDir(), replicas, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// OpenSentinel does what StartSentinel does, with the files in a directory.
func OpenSentinel(dir string, replicas int, options Options) (_ *Sentinel, err error) {
	s := &Sentinel{Master: "capture"}
	defer func() {
		if err != nil {
			s.Kill()
		}
	}()
	if options, err = options.shared(dir); err != nil {
		return nil, err
	}
	for i := range 1 + replicas {
		of := options
		if i > 0 {
			of.Lines = append(slices.Clone(of.Lines), fmt.Sprint("replicaof 127.0.0.1 ", s.Servers[0].port))
		}
		server, err := Open(filepath.Join(dir, fmt.Sprint("redis-", i)), of)
		if err != nil {
			return nil, err
		}
		s.Servers = append(s.Servers, server)
	}
	primary := s.Servers[0]
	watch := Options{TLS: options.TLS, authority: options.authority, password: primary.Password, Lines: []string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 2", s.Master, primary.port),
		"sentinel down-after-milliseconds " + s.Master + " 1000",
		"sentinel failover-timeout " + s.Master + " 3000",
	}}
	if primary.Password != "" {
		watch.Lines = append(watch.Lines, "sentinel sentinel-pass "+primary.Password,
			fmt.Sprintf("sentinel auth-pass %s %s", s.Master, primary.Password))
	}
	for i := range sentinels {
		sentinel, err := open(filepath.Join(dir, fmt.Sprint("sentinel-", i)), watch, "redis-server", "--sentinel")
		if err != nil {
			return nil, err
		}
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	err = s.Await(replicas)
	return s, err
}

// Await returns when the Sentinels know each other and a primary with so many replicas that are up to date.
func (s *Sentinel) Await(replicas int) error {
	var problem error
	err := process.Poll(patience, pause, func() (bool, error) {
		problem = s.whole(replicas)
		return problem == nil, nil
	})
	if err != nil {
		return fmt.Errorf("the Sentinels: %w: %w", err, problem)
	}
	return nil
}

func (s *Sentinel) whole(replicas int) error {
	for _, sentinel := range s.Sentinels {
		info, err := sentinel.Info("sentinel")
		if err != nil {
			return err
		}
		if want := fmt.Sprintf("status=ok,address=%s,slaves=", s.primary()); !strings.Contains(info, want) {
			return errors.New(info)
		}
		if !strings.Contains(info, fmt.Sprintf("sentinels=%d\r\n", sentinels)) {
			return errors.New(info)
		}
	}
	primary, err := s.Primary()
	if err != nil {
		return err
	}
	for i := range replicas {
		info, err := primary.Info("replication")
		if err != nil {
			return err
		}
		if !strings.Contains(info, "role:master\r\n") || !strings.Contains(info, fmt.Sprintf("slave%d:", i)) ||
			strings.Contains(info, "state=wait_bgsave") || strings.Contains(info, "state=send_bulk") {
			return errors.New(info)
		}
	}
	return nil
}

// primary returns the address of the primary, as the first Sentinel that answers knows it.
func (s *Sentinel) primary() string {
	for _, sentinel := range s.Sentinels {
		reply, err := sentinel.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.Master)
		if list, ok := reply.([]any); err == nil && ok && len(list) == 2 {
			return fmt.Sprintf("%v:%v", list[0], list[1])
		}
	}
	return ""
}

// Primary returns the server that is the primary according to the Sentinels.
func (s *Sentinel) Primary() (*Server, error) {
	at := s.primary()
	for _, server := range s.Servers {
		if server.Addr == at {
			return server, nil
		}
	}
	return nil, fmt.Errorf("the Sentinels say that the primary is %q, which is no server", at)
}

// Failover kills the primary and returns when the Sentinels have put a replica in its place. The killed server can be
// started again; it is a replica then.
func (s *Sentinel) Failover(ctx context.Context) (killed *Server, err error) {
	if killed, err = s.Primary(); err != nil {
		return nil, err
	}
	killed.Kill()
	return killed, process.Poll(patience, pause, func() (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		primary, err := s.Primary()
		if err == nil && primary != killed {
			info, err := primary.Info("replication")
			return err == nil && strings.Contains(info, "role:master\r\n"), nil
		}
		return false, nil
	})
}

// Addrs returns the addresses of the Sentinels.
func (s *Sentinel) Addrs() []string { return addrs(s.Sentinels) }

// Kill ends all servers.
func (s *Sentinel) Kill() { kill(s.Sentinels, s.Servers) }
