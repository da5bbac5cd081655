package testkit_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// gone returns a pipe whose reader is gone, like the pipe of head -1 after a line.
func gone(t *testing.T) *os.File {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, read.Close())
	t.Cleanup(func() { require.NoError(t, write.Close()) })
	return write
}

// full returns a pipe that is full because its reader has stopped reading.
func full(t *testing.T) *os.File {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, write.Close())
		require.NoError(t, read.Close())
	})
	raw, err := write.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Write(func(fd uintptr) bool {
		for err == nil {
			_, err = syscall.Write(int(fd), []byte("x"))
		}
		return true
	}))
	require.ErrorIs(t, err, syscall.EAGAIN)
	return write
}

// freeAddress returns an address that nobody listens on, for a process that cannot report the port that it took. The
// system does not hand out ports of this range by itself.
func freeAddress(t *testing.T) string {
	for {
		address := fmt.Sprint("127.0.0.1:", 20_000+rand.IntN(10_000))
		if listener, err := net.Listen("tcp", address); err == nil {
			require.NoError(t, listener.Close())
			return address
		}
	}
}

func TestTheServiceNeedsNobodyToReadWhatItPrints(t *testing.T) {
	for name, pipe := range map[string]func(*testing.T) *os.File{
		"readers that are gone": gone, "readers that have stopped to read": full,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listen, admin := freeAddress(t), freeAddress(t)
			p := prepare(t, "CAPTURE_TRANSPORT__LISTEN="+listen, "CAPTURE_ADMIN__LISTEN="+admin,
				"CAPTURE_OBSERVABILITY__LOG__LEVEL=debug")
			p.Stdout, p.Stderr = pipe(t), pipe(t)
			p.start(t)
			go func() {
				p.err = p.Wait()
				close(p.exited)
			}()
			client := &http.Client{Timeout: patience, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			send := func(method, url, body string) (status int, answer string) {
				request, err := http.NewRequestWithContext(t.Context(), method, "http://"+url, strings.NewReader(body))
				require.NoError(t, err)
				response, err := client.Do(request)
				if err != nil {
					return 0, err.Error()
				}
				defer func() { _ = response.Body.Close() }()
				text, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				return response.StatusCode, string(text)
			}
			require.Eventually(t, func() bool {
				status, _ := send("GET", listen+"/_readiness", "")
				return status == http.StatusOK
			}, patience, 10*time.Millisecond)

			// A request that is refused logs a line at debug.
			dropped := func() int {
				_, text := send("GET", admin+"/metrics", "")
				return metric(t, text, "capture_observability_log_lines_dropped_total")
			}
			for range 3 {
				before := dropped()
				require.Eventually(t, func() bool {
					for range 200 {
						status, answer := send("POST", listen+"/e/", "{")
						require.Equal(t, http.StatusBadRequest, status, answer)
					}
					return dropped() > before
				}, patience, time.Millisecond)
			}
			status, answer := send("POST", listen+"/e/", hello)
			require.Equal(t, http.StatusOK, status, answer)

			require.NoError(t, p.Process.Signal(syscall.SIGTERM))
			require.NoError(t, p.wait(t), "a stop by SIGTERM exits 0")
		})
	}
}

// An error that nobody reads still gives an exit code.
func TestAStartThatFailsEndsAlthoughNobodyReadsWhy(t *testing.T) {
	for name, pipe := range map[string]func(*testing.T) *os.File{
		"a reader that is gone": gone, "a reader that has stopped to read": full,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := prepare(t, "CAPTURE_OBSERVABILITY__LOG__LEVEL=debug", "CAPTURE_ADMIN__LISTEN=203.0.113.1:1")
			p.Stderr = pipe(t)
			p.start(t)
			go func() {
				p.err = p.Wait()
				close(p.exited)
			}()
			var exit *exec.ExitError
			require.ErrorAs(t, p.wait(t), &exit)
			require.Equal(t, 1, exit.ExitCode())
		})
	}
}

// Unlike the service, a command has nothing left to do once its reader is gone, as in capture config print | head -1.
func TestACommandEndsQuietlyWhenItsReaderIsGone(t *testing.T) {
	service := run(t)
	response, err := http.Post(service.url+"/e/", "application/json", strings.NewReader(hello))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	for _, command := range []string{"config print", "config reference", "graph", "version", "tail --from start",
		"spool status", "dlq list"} {
		p := prepare(t, "CAPTURE_KAFKA__BROKERS="+service.broker)
		p.Dir = service.Dir
		p.Args = append(p.Args, strings.Fields(command)...)
		p.Stdout = gone(t)
		err := p.Run()
		var exit *exec.ExitError
		if err != nil {
			require.ErrorAs(t, err, &exit, command)
			require.Equal(t, syscall.SIGPIPE, exit.Sys().(syscall.WaitStatus).Signal(), "%s: %s", command, err)
		}
		require.Empty(t, p.stderr.String(), command)
	}
}
