//go:build linux

package redisserver_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/redisserver"
)

// do sends a command whose answer is no error.
func do(t *testing.T, s *redisserver.Server, command ...string) any {
	t.Helper()
	reply, err := s.Do(command...)
	require.NoError(t, err)
	return reply
}

func TestAServerAnswersAndForgetsUnlessItKeepsAFile(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	for _, keeps := range []bool{false, true} {
		server := redisserver.Start(t, redisserver.Options{
			AppendOnly: keeps, Lines: []string{"appendfsync always", "maxmemory 64mb"},
		})
		require.Equal(t, "OK", do(t, server, "SET", "key", "a\r\nb"))
		require.Equal(t, "a\r\nb", do(t, server, "GET", "key"))
		require.Equal(t, []any{"maxmemory", "67108864"}, do(t, server, "CONFIG", "GET", "maxmemory"))
		_, err := server.Do("NO-SUCH-COMMAND")
		require.ErrorAs(t, err, new(redisserver.ReplyError))
		used, err := server.InfoInt("memory", "used_memory")
		require.NoError(t, err)
		require.Positive(t, used)

		server.Kill()
		require.Error(t, server.Ended())
		_, err = server.Do("PING")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.NoError(t, server.Restart())
		if reply := do(t, server, "GET", "key"); keeps {
			require.Equal(t, "a\r\nb", reply)
		} else {
			require.Nil(t, reply)
		}
	}
}

func TestAHungServerDoesNotAnswerUntilItGoesOn(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	server := redisserver.Start(t, redisserver.Options{})
	require.NoError(t, server.Stop())
	answered := make(chan error, 1)
	go func() {
		_, err := server.Do("PING")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a hung server has answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	require.NoError(t, server.Continue())
	require.NoError(t, <-answered)
}

func TestUsersAndTLS(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	users := []string{"capture on >secret ~capture:* +get"}
	server := redisserver.Start(t, redisserver.Options{TLS: true, Users: users})
	require.Equal(t, "OK", do(t, server, "SET", "capture:1", "one"))
	require.Contains(t, do(t, server, "ACL", "LIST").([]any)[0], "user capture on")
	require.FileExists(t, server.CAFile)
	plain := *server
	plain.TLS = nil
	_, err := plain.Do("PING")
	require.Error(t, err, "a client without TLS")
	plain = *server
	plain.Password = ""
	_, err = plain.Do("GET", "capture:1")
	require.ErrorContains(t, err, "NOAUTH")
}

func TestSentinelsPutAReplicaInThePlaceOfAPrimary(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	inBothManners(t, func(t *testing.T, options redisserver.Options) {
		group := redisserver.StartSentinel(t, 1, options)
		require.Len(t, group.Addrs(), 3)
		primary, err := group.Primary()
		require.NoError(t, err)
		require.Same(t, group.Servers[0], primary)
		do(t, primary, "SET", "key", "value")
		awaitCopy(t, group.Servers)
		killed, err := group.Failover(t.Context())
		require.NoError(t, err)
		require.Same(t, primary, killed)
		primary, err = group.Primary()
		require.NoError(t, err)
		require.Same(t, group.Servers[1], primary)
		require.Equal(t, "value", do(t, primary, "GET", "key"))
		require.NoError(t, killed.Restart())
		require.NoError(t, group.Await(1))
	})
}

// awaitCopy returns when a replica has the one key that the primary has: a primary answers before its replicas have it,
// and may be killed in between.
func awaitCopy(t *testing.T, servers []*redisserver.Server) {
	t.Helper()
	require.NoError(t, process.Poll(30*time.Second, 10*time.Millisecond, func() (bool, error) {
		keys := int64(0)
		for _, server := range servers {
			keys += do(t, server, "DBSIZE").(int64)
		}
		return keys == 2, nil
	}))
}

// inBothManners runs a test with plain servers and with such that have TLS and users.
func inBothManners(t *testing.T, test func(*testing.T, redisserver.Options)) {
	t.Helper()
	for name, options := range map[string]redisserver.Options{
		"plain":   {},
		"secured": {TLS: true, Users: []string{"capture on >secret ~* &* +@all"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, options)
		})
	}
}

func TestAClusterServesAndReplacesAPrimary(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	inBothManners(t, func(t *testing.T, options redisserver.Options) {
		group := redisserver.StartCluster(t, 3, 1, options)
		require.Len(t, group.Addrs(), 6)
		primary, err := group.PrimaryOf("key")
		require.NoError(t, err)
		do(t, primary, "SET", "key", "value")
		awaitCopy(t, group.Servers)
		killed, err := group.Failover(t.Context(), "key")
		require.NoError(t, err)
		require.Same(t, primary, killed)
		require.NoError(t, process.Poll(30*time.Second, 50*time.Millisecond, func() (bool, error) {
			now, err := group.PrimaryOf("key")
			if err == nil && now != primary {
				reply, err := now.Do("GET", "key")
				return err == nil && reply == "value", nil
			}
			return false, nil
		}))
		require.NoError(t, killed.Restart())
		require.NoError(t, group.Await())
	})
}

func TestAClusterNeedsNoReplicas(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	group := redisserver.StartCluster(t, 3, 0, redisserver.Options{})
	require.Len(t, group.Addrs(), 3)
	_, err := group.Servers[0].Do("GET", "key") // its slot is 12539, the last server's
	require.ErrorContains(t, err, "MOVED 12539 "+group.Servers[2].Addr)
}

// childEnv says to TestNoServerOutlivesItsTest that it is the child.
const childEnv = "CAPTURE_TEST_REDISSERVER_CHILD"

func TestNoServerOutlivesItsTest(t *testing.T) {
	redisserver.Integration(t)
	if file := os.Getenv(childEnv); file != "" {
		server := redisserver.Start(t, redisserver.Options{})
		require.NoError(t, os.WriteFile(file, []byte(server.Addr), 0o600))
		select {} // until it is killed
	}
	t.Parallel()
	file := t.TempDir() + "/address"
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestNoServerOutlivesItsTest$")
	child.Env = append(os.Environ(), childEnv+"="+file)
	require.NoError(t, child.Start())
	var addr string
	require.NoError(t, process.Poll(30*time.Second, 10*time.Millisecond, func() (bool, error) {
		content, err := os.ReadFile(file)
		addr = string(content)
		return err == nil && strings.Contains(addr, ":"), nil
	}))
	server := &redisserver.Server{Addr: addr}
	require.Equal(t, "PONG", do(t, server, "PING"))
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	require.NoError(t, process.Poll(30*time.Second, 10*time.Millisecond, func() (bool, error) {
		_, err := server.Do("PING")
		return err != nil, nil
	}))
}
