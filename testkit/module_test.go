package testkit_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// goBlock matches a block of Go in a page.
var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// The code of docs/adding-a-module.md is everything that a build of one's own needs. The test compiles it outside the
// checkout and uses each of its parts: the section, the stage and its settlement, the route, the endpoint, the command,
// the live key.
func TestAModuleAsTheDocumentationHasItRuns(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/adding-a-module.md")
	require.NoError(t, err)
	blocks := goBlock.FindAllSubmatch(page, -1)
	require.Len(t, blocks, 2)
	_, code, _ := strings.Cut(string(blocks[1][1]), "// Config is the section")
	lines := 0
	for line := range strings.SplitSeq(code, "\n") {
		if strings.TrimSpace(line) != "" {
			lines++
		}
	}
	require.LessOrEqual(t, lines, 60, "lines behind the imports, without blank ones")
	path := compile(t, string(blocks[1][1]))

	command := exec.Command(path, "blocklist")
	command.Env = append(os.Environ(), "CAPTURE_BLOCKLIST__NAME=secret")
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Equal(t, "events named \"secret\" are dropped\n", string(output))

	config := filepath.Join(t.TempDir(), "mine.yaml")
	require.NoError(t, os.WriteFile(config, []byte("blocklist: {name: secret}\n"), 0o600))
	p := prepare(t)
	p.Path, p.Args = path, []string{path, "serve", "--config", config}
	p.serve(t)
	post := func(name string) {
		answer, err := http.Post(p.url+"/e/", "application/json",
			strings.NewReader(`{"api_key":"k","distinct_id":"u","event":"`+name+`"}`))
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, 200, answer.StatusCode)
	}
	get := func(url string) string {
		answer, err := http.Get(url)
		require.NoError(t, err)
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, 200, answer.StatusCode, url)
		return string(body)
	}
	post("secret")
	post("public")
	require.Equal(t, "1 dropped, 1 safe\n", get(p.url+"/blocklist"))
	require.Equal(t, "1 dropped, 1 safe\n", get(p.admin+"/admin/blocklist"))

	require.NoError(t, os.WriteFile(config, []byte("blocklist: {name: public}\n"), 0o600))
	require.NoError(t, p.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool {
		return strings.Contains(get(p.admin+"/metrics"), "\ncapture_config_number 2\n")
	}, patience, 10*time.Millisecond)
	post("public")
	require.Equal(t, "2 dropped, 1 safe\n", get(p.url+"/blocklist"))
}

// The smallest module has twenty lines behind the imports, and does what the page says.
func TestTheSmallestModuleOfTheDocumentationRuns(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/adding-a-module.md")
	require.NoError(t, err)
	code := string(goBlock.FindSubmatch(page)[1])
	_, own, _ := strings.Cut(code, ")\n")
	require.LessOrEqual(t, strings.Count(strings.ReplaceAll(own, "\n\n", "\n"), "\n"), 20+1)
	p := prepare(t)
	p.Path = compile(t, code)
	p.Args[0] = p.Path
	p.serve(t)
	for _, name := range []string{"secret", "public"} {
		answer, err := http.Post(p.url+"/e/", "application/json",
			strings.NewReader(`{"api_key":"k","distinct_id":"u","event":"`+name+`"}`))
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, 200, answer.StatusCode)
	}
	answer, err := http.Get(p.admin + "/metrics")
	require.NoError(t, err)
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Contains(t, string(text), "\ncapture_events_dropped_total{reason=\"discreet\"} 1\n")
	require.Contains(t, string(text), "\ncapture_events_accepted_total 1\n")
}

// compile builds the code as a module of its own that uses the checkout.
func compile(t *testing.T, code string) (path string) {
	t.Helper()
	checkout, err := filepath.Abs("..")
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	// The versions are the checkout's, so that nothing has to be looked up or downloaded.
	required, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(required), "require (")
	require.True(t, found)
	write("go.mod", "module example.com/mine\n\ngo 1.26.0\n\nrequire github.com/opencapture/capture v0.0.0\n\n"+
		"replace github.com/opencapture/capture => "+checkout+"\n\nrequire ("+rest)
	sums, err := os.ReadFile("../go.sum")
	require.NoError(t, err)
	write("go.sum", string(sums))
	write("main.go", code)
	path = filepath.Join(dir, "mine")
	build := exec.Command("go", "build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	build.Dir = dir
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)
	return path
}
