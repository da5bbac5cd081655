//go:build hostile && linux

package hostile

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/terminal"
	"github.com/opencapture/capture/testkit/process"
)

// What clients have put into every field that reaches an operator's screen is text there, and no command to the screen.
func TestNoClientCommandsTheOperatorsTerminal(t *testing.T) {
	const obeyed = "\x1b]0;owned\x07\x1b[2J\u009b2J\x7f\u202e\u2066\u2028\r\nforged"
	path, err := stock()
	require.NoError(t, err)
	dir := filepath.Join(workplace, t.Name())
	require.NoError(t, os.MkdirAll(dir, 0o700))
	environ := []string{
		"CAPTURE_EMBEDDED__KAFKA_LISTEN=127.0.0.1:0", "CAPTURE_DELIVERY__SPOOL__RESERVE=0",
		"CAPTURE_ROUTING__DLQ=phc_dead", "CAPTURE_OBSERVABILITY__LOG__LEVEL=debug",
	}
	service, err := process.Serve(dir, filepath.Join(dir, "output"), environ, path, "serve")
	require.NoError(t, err)
	for _, token := range []string{"phc_\x1b[2J", "phc_dead"} {
		properties := map[string]string{"$current_url": obeyed, "$lib": obeyed, obeyed: obeyed}
		body, err := json.Marshal(map[string]any{
			"api_key": token, "event": obeyed, "distinct_id": obeyed, "properties": properties,
		})
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, assault(t.Context(), strings.TrimPrefix(service.URL, "http://"), post(
			"/e/?ip=%1b%5b2J", body, "Content-Type: application/json", "User-Agent: \u009b2J\u202e",
			"X-Request-Id: \u009b2J\u202e", "X-Forwarded-For: \u009b2J",
		), false))
	}
	for _, line := range []string{
		"tail --no-follow", "tail --no-follow --format json", "dlq list", "dlq show", "dlq replay", "spool status",
	} {
		command := exec.CommandContext(t.Context(), path, strings.Fields(line)...)
		command.Dir = dir
		command.Env = append([]string{"CAPTURE_KAFKA__BROKERS=" + service.Broker}, environ...)
		output, err := command.CombinedOutput()
		require.NoError(t, err, "%s: %s", line, output)
		require.NotEmpty(t, output, line)
		require.Equal(t, string(terminal.EscapeLines(output)), string(output), line)
		require.NotRegexp(t, `(?m)^\s*forged`, string(output), line)
	}
	require.NoError(t, service.Terminate(stopPatience))
	log, err := os.ReadFile(service.Output)
	require.NoError(t, err)
	require.Equal(t, string(terminal.EscapeLines(log)), string(log))
	require.NotRegexp(t, `(?m)^\s*forged`, string(log))
}
