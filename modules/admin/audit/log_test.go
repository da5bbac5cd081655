package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/admin/endpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func httpRequest(ctx context.Context) *http.Request {
	r := httptest.NewRequestWithContext(ctx, http.MethodPut, "/admin/projects/phc%2Fa?x=y", nil)
	return r.WithContext(endpoint.WithCaller(r.Context(),
		endpoint.Caller{Name: "eve\u202e\n", Login: "admin.token", Address: "10.1.2.3"}))
}

// logTo returns a log to a file, or without a path to the writer.
func logTo(t *testing.T, path string, stderr io.Writer) (*Log, *observer.ObservedLogs, tally.TestScope) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	scope := tally.NewTestScope("", nil)
	l := New(func() string { return path }, stderr, zap.New(core), scope.Counter("failures"))
	t.Cleanup(l.Close)
	return l, logs, scope
}

func lines(t *testing.T, text string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		if line == "\n" {
			continue
		}
		require.True(t, strings.HasSuffix(line, "\n"), line)
		var one map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &one), line)
		all = append(all, one)
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

var subject = Subject{
	Kind: "project", Name: "phc/a", Before: nil,
	After: Conceal(map[string]string{"name": "Shop", "signing_secret": "hunter2"}),
}

func TestAChangeHasTwoLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, _, _ := logTo(t, path, io.Discard)
	change, err := l.Begin(httpRequest(t.Context()), subject)
	require.NoError(t, err)
	require.Len(t, lines(t, read(t, path)), 1, "the first is there before the change is made")
	change.End(t.Context(), nil)
	other, err := l.Begin(httpRequest(t.Context()), subject)
	require.NoError(t, err)
	other.End(t.Context(), errors.New("the store is away"))

	text := read(t, path)
	require.NotContains(t, text, "hunter2")
	all := lines(t, text)
	require.Len(t, all, 4)
	require.Equal(t, all[0]["id"], all[1]["id"])
	require.NotEqual(t, all[0]["id"], all[2]["id"])
	for _, one := range all {
		require.NotEmpty(t, one["time"])
		delete(one, "time")
		delete(one, "id")
	}
	require.Equal(t, map[string]any{
		"step": "begin", "actor": "eve\u202e\n", "login": "admin.token", "address": "10.1.2.3", "method": "PUT",
		"path": "/admin/projects/phc%2Fa", "kind": "project", "name": "phc/a",
		"after": map[string]any{"name": "Shop", "signing_secret": "******"},
	}, all[0])
	require.Equal(t, map[string]any{"step": "end", "kind": "project", "name": "phc/a", "result": "done"}, all[1])
	require.Equal(t, "the store is away", all[3]["result"])
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestWithoutAFileLinesGoToStandardErrorAndNoTerminalObeysThem(t *testing.T) {
	var stderr bytes.Buffer
	l, _, _ := logTo(t, "", &stderr)
	change, err := l.Begin(httpRequest(t.Context()), subject)
	require.NoError(t, err)
	change.End(t.Context(), nil)
	require.Contains(t, stderr.String(), `"actor":"eve\u202e\n"`)
	require.NotContains(t, stderr.String(), "\u202e")
	require.Len(t, lines(t, stderr.String()), 2)
}

func TestAFileThatIsMovedAwayIsBegunAnewAndATornLineIsEnded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(`{"id":"torn`), 0o600))
	l, _, _ := logTo(t, path, io.Discard)
	begin := func() {
		_, err := l.Begin(httpRequest(t.Context()), subject)
		require.NoError(t, err)
	}
	begin()
	torn, rest, _ := strings.Cut(read(t, path), "\n")
	require.Equal(t, `{"id":"torn`, torn)
	require.Len(t, lines(t, rest), 1)

	require.NoError(t, os.Rename(path, path+".1"))
	begin()
	require.Len(t, lines(t, read(t, path)), 1)
	require.NoError(t, os.Remove(path))
	begin()
	begin()
	require.Len(t, lines(t, read(t, path)), 2)
	_, rest, _ = strings.Cut(read(t, path+".1"), "\n")
	require.Len(t, lines(t, rest), 1)

	// logrotate may put a new file in its place.
	require.NoError(t, os.Rename(path, path+".2"))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	begin()
	require.Len(t, lines(t, read(t, path)), 1)
	require.Len(t, lines(t, read(t, path+".2")), 2)
}

// A write that has failed may have left a part of its line: the next line begins a new one.
func TestALineBehindAFailedWriteBeginsANewOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	var f file
	require.NoError(t, f.append(path, []byte("one\n")))
	whole := f.open
	var err error
	f.open, err = os.Open(path) // which cannot be written
	require.NoError(t, err)
	require.Error(t, f.append(path, []byte("two\n")))
	require.NoError(t, f.open.Close())
	f.open = whole
	require.NoError(t, f.append(path, []byte("three\n")))
	require.NoError(t, f.append(path, []byte("four\n")))
	f.close()
	require.Equal(t, "one\n\nthree\nfour\n", read(t, path))
}

func TestAnEndIsNotedAlthoughTheClientHasLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, _, _ := logTo(t, path, io.Discard)
	ctx, leave := context.WithCancel(t.Context())
	change, err := l.Begin(httpRequest(ctx), subject)
	require.NoError(t, err)
	leave()
	for range 20 { // of two things that are ready, select takes either
		change.End(ctx, nil)
	}
	require.Len(t, lines(t, read(t, path)), 21)
}

func TestSecretsAreConcealedHoweverTheyAreWritten(t *testing.T) {
	require.Equal(t, map[string]string{"Password": "******", "PRIVATE_KEY": "******", "name": "a"},
		Conceal(map[string]string{"Password": "a", "PRIVATE_KEY": "b", "name": "a"}))
	require.Nil(t, Conceal(nil))
}

func TestAChangeThatCannotBeNotedIsRefused(t *testing.T) {
	dir := t.TempDir()
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	require.NoError(t, os.Symlink("/dev/null", link))
	open := filepath.Join(dir, "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	for path, why := range map[string]string{
		filepath.Join(dir, "missing", "audit"): "no such file", fifo: "no regular file", link: "symbolic links",
		dir: "is a directory", filepath.Join(open, "audit"): "all users of this machine can write",
	} {
		l, _, scope := logTo(t, path, io.Discard)
		_, err := l.Begin(httpRequest(t.Context()), subject)
		require.ErrorIs(t, err, ErrNotWritten, path)
		require.ErrorContains(t, err, why)
		require.Equal(t, int64(1), scope.Snapshot().Counters()["failures+"].Value())
	}
	l, _, _ := logTo(t, "", failing{})
	_, err := l.Begin(httpRequest(t.Context()), subject)
	require.ErrorIs(t, err, errBroken)
	_, err = l.Begin(httpRequest(t.Context()), Subject{After: strings.Repeat("x", maxLine)})
	require.ErrorContains(t, err, "is too long")
	_, err = l.Begin(httpRequest(t.Context()), Subject{After: func() {}})
	require.ErrorIs(t, err, ErrNotWritten)
	l.Close()
	_, err = l.Begin(httpRequest(t.Context()), subject)
	require.ErrorIs(t, err, errClosed)
}

var errBroken = errors.New("broken pipe")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errBroken }

func TestAnEndThatCannotBeNotedIsInTheLogOfTheService(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	require.NoError(t, os.Mkdir(dir, 0o700))
	l, logs, _ := logTo(t, filepath.Join(dir, "audit"), io.Discard)
	change, err := l.Begin(httpRequest(t.Context()), subject)
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(dir))
	change.End(t.Context(), nil)
	require.Equal(t, 1, logs.FilterMessageSnippet("does not say how it ended").Len())
}

// stuck is a writer whose reader has stopped reading.
type stuck struct{ release chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.release
	return len(p), nil
}

func TestAReaderThatHangsHoldsNobodyUpForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		writer := stuck{make(chan struct{})}
		core, _ := observer.New(zap.InfoLevel)
		l := New(func() string { return "" }, writer, zap.New(core), tally.NoopScope.Counter("x"))
		for range maxWaiting + 3 {
			_, err := l.Begin(httpRequest(t.Context()), subject)
			require.ErrorIs(t, err, errLate)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		_, err := l.Begin(httpRequest(gone), subject)
		require.ErrorIs(t, err, context.Canceled)
		close(writer.release)
		synctest.Wait()
		_, err = l.Begin(httpRequest(t.Context()), subject)
		require.NoError(t, err)
		l.Close()
		l.Close()
	})
}

func TestConcurrentLinesAreWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	l, _, _ := logTo(t, path, io.Discard)
	var work sync.WaitGroup
	for i := range 20 {
		work.Go(func() {
			change, err := l.Begin(httpRequest(context.Background()), Subject{Kind: fmt.Sprint(i)})
			if err != nil {
				t.Error(err)
				return
			}
			change.End(context.Background(), nil)
		})
	}
	work.Wait()
	require.Len(t, lines(t, read(t, path)), 40)
}
