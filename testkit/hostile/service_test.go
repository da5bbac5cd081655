//go:build hostile && linux

package hostile

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/testkit/process"
)

// workplace holds the binary, and a directory for each service.
var workplace string

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if workplace, err = os.MkdirTemp("", "capture-hostile-"); err != nil {
		panic(err)
	}
	code := m.Run()
	if code == 0 {
		_ = os.RemoveAll(workplace)
	}
	os.Exit(code)
}

// stock builds the stock binary once for all attacks.
var stock = process.Stock("CAPTURE_HOSTILE_BINARY", func() string { return workplace })

// stopPatience is how long the end of a service may take.
const stopPatience = 3 * time.Minute

// start starts a service with a Kafka of its own. The end of the test stops the service, which must end in order: what
// an attack has left behind may not keep it from stopping.
func start(t *testing.T, environ ...string) *process.Service {
	path, err := stock()
	require.NoError(t, err)
	dir := filepath.Join(workplace, strings.ReplaceAll(t.Name(), "/", "-"))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	service, err := process.Serve(dir, filepath.Join(dir, "output"), append([]string{
		"CAPTURE_KAFKA__BROKERS=" + kafka(t), "CAPTURE_DELIVERY__SPOOL__RESERVE=0",
	}, environ...), path, "serve")
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := service.Terminate(stopPatience); err != nil {
			t.Errorf("the service did not end in order: %v\n%s", err, process.Tail(service.Output))
			service.Kill()
		}
	})
	return service
}
