package process_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/testkit/process"
)

// portsEnv has the test's own binary print ports and wait for the end of its input.
const portsEnv = "CAPTURE_PORTS_OF_ANOTHER_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(portsEnv) == "" {
		os.Exit(m.Run())
	}
	for range portsOfAProgram {
		fmt.Println(process.FreePort())
	}
	_ = os.Stdout.Close()
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// So many ports are a seventh of the range, so that two programs meet often if nothing keeps them apart.
const programs, portsOfAProgram = 5, 300

func TestNoTwoProgramsGetTheSamePort(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	var (
		all   sync.WaitGroup
		ports = make([][]string, programs)
	)
	for i := range ports {
		command := exec.CommandContext(t.Context(), self)
		command.Env = append(os.Environ(), portsEnv+"=yes")
		_, err := command.StdinPipe() // it is closed when this program ends
		require.NoError(t, err)
		output, err := command.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, command.Start())
		t.Cleanup(func() { _ = command.Process.Kill() })
		all.Go(func() {
			var text strings.Builder
			_, _ = io.Copy(&text, output)
			ports[i] = strings.Fields(text.String())
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for _, of := range ports {
		require.Len(t, of, portsOfAProgram)
		for _, port := range of {
			require.False(t, seen[port], "port %s is that of two programs", port)
			seen[port] = true
		}
	}
}

// Other programs are started meanwhile, as a suite does.
func TestAFreePortCanBeListenedOnAtOnce(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	ended := make(chan struct{})
	var starts sync.WaitGroup
	starts.Go(func() {
		for {
			select {
			case <-ended:
				return
			default:
				_ = exec.CommandContext(t.Context(), self, "-test.run=^$").Run()
			}
		}
	})
	for range 100 {
		listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(process.FreePort()))
		if err != nil {
			t.Error(err)
			break
		}
		defer func() { _ = listener.Close() }()
	}
	close(ended)
	starts.Wait()
}
