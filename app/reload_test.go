package app

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

type sign struct {
	Text   string `key:"text" live:"true" doc:"What the sign says."`
	Street string `key:"street" doc:"Where the sign is."`
}

var signModules = []module.Module{{Name: "sign", Config: sign{}}}

// watched is a reloader that watches one file.
type watched struct {
	*reloader
	live *configs.Live
	text *configs.Value[sign]
	logs *observer.ObservedLogs
}

func watch(t *testing.T, path string, hangups <-chan os.Signal, every time.Duration) *watched {
	t.Helper()
	r := newReloader(signModules, configs.Source{Files: []string{path}})
	r.every, r.hangups = every, hangups
	set, err := r.load()
	require.NoError(t, err)
	live := configs.NewLive(set, r.load)
	text, err := configs.Current[sign](live)
	require.NoError(t, err)
	core, logs := observer.New(zap.DebugLevel)
	r.start(live, zap.New(core))
	t.Cleanup(func() {
		r.stop()
		goleak.VerifyNone(t)
	})
	return &watched{reloader: r, live: live, text: text, logs: logs}
}

func (w *watched) says(text string) func() bool {
	return func() bool { return w.text.Now().Text == text }
}

// write replaces the file in one step, so that a look sees either the old text or all of the new one.
func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

const (
	patience = 2 * time.Minute
	poll     = time.Millisecond
)

func TestAFileThatChangesIsLoaded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sign.yaml")
	write(t, path, "sign: {text: open}\n")
	w := watch(t, path, nil, poll)
	require.Equal(t, "open", w.text.Now().Text)
	write(t, path, "sign: {text: closed}\n")
	require.Eventually(t, w.says("closed"), patience, poll)

	// A refused configuration is logged once, and the one in force stays.
	write(t, path, "sign: {text: moved, street: Side}\n")
	require.Eventually(t, func() bool { return w.live.Status().Error != "" }, patience, poll)
	require.NoError(t, os.Remove(path))
	require.Eventually(t, func() bool { return w.logs.FilterLevelExact(zap.ErrorLevel).Len() == 2 }, patience, poll)
	write(t, path, "sign: {text: back}\n")
	require.Eventually(t, w.says("back"), patience, poll)
	var lines []string
	for _, line := range w.logs.All() {
		lines = append(lines, line.Message)
	}
	require.Equal(t, []string{
		"the configuration was exchanged",
		"the configuration was not exchanged, the one in force stays: sign.street: needs a restart",
		"the configuration was not exchanged, the one in force stays: " + path +
			": cannot be read: no such file or directory",
		"the configuration was exchanged",
	}, lines)
	require.Equal(t, []any{"sign.text"}, w.logs.All()[0].ContextMap()["changed"])
}

// The log does not say that the old configuration stays when the new one is in force without one of its parts.
func TestALogLineTellsOfAPartThatPanics(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sign.yaml")
	write(t, path, "sign: {text: open}\n")
	hangups := make(chan os.Signal)
	w := watch(t, path, hangups, time.Hour)
	require.NoError(t, configs.Follow(w.live, func(_, _ sign) (configs.Change, error) {
		return configs.Change{Commit: func() { panic("no ladder") }}, nil
	}))
	write(t, path, "sign: {text: closed}\n")
	hangups <- syscall.SIGHUP
	require.Eventually(t, func() bool { return w.logs.Len() == 1 }, patience, poll)
	require.Equal(t, "closed", w.text.Now().Text)
	line := w.logs.All()[0]
	require.Equal(t, "the configuration is in force, but putting a part of it in force panicked: no ladder",
		line.Message)
	require.Equal(t, zap.ErrorLevel, line.Level)
	require.Equal(t, []any{"sign.text"}, line.ContextMap()["changed"])
}

// Kubernetes puts a ConfigMap's files below a symbolic link to a directory, and exchanges the link.
func TestADirectoryBehindALinkThatIsExchangedIsLoaded(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"one", "two"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		write(t, filepath.Join(dir, version, "sign.yaml"), "sign: {text: "+version+"}\n")
	}
	link := func(version string) {
		require.NoError(t, os.Symlink(version, filepath.Join(dir, "..new")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
	}
	link("one")
	require.NoError(t, os.Symlink(filepath.Join("..data", "sign.yaml"), filepath.Join(dir, "sign.yaml")))
	w := watch(t, filepath.Join(dir, "sign.yaml"), nil, poll)
	require.Equal(t, "one", w.text.Now().Text)
	link("two")
	require.Eventually(t, w.says("two"), patience, poll)
}

// The reloader answers a hangup at once, without waiting for the next look at the files.
func TestAHangupLoadsTheConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sign.yaml")
	write(t, path, "sign: {text: open}\n")
	hangups := make(chan os.Signal)
	w := watch(t, path, hangups, time.Hour)
	write(t, path, "sign: {text: closed}\n")
	hangups <- syscall.SIGHUP
	require.Eventually(t, w.says("closed"), patience, poll)
	hangups <- syscall.SIGHUP
	require.Eventually(t, func() bool { return w.logs.Len() == 2 }, patience, poll)
	require.Equal(t, "the configuration was loaded, and nothing in it has changed", w.logs.All()[1].Message)
}

// The reloader loads a file that is written bit by bit once the file has stopped changing, although the content in
// between would be valid, too.
func TestAFileThatIsStillBeingWrittenIsNotLoaded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sign.yaml")
	write(t, path, "sign: {text: open}\n")
	r := newReloader(signModules, configs.Source{Files: []string{path}})
	_, err := r.load()
	require.NoError(t, err)
	_, seen := r.read()
	write(t, path, "sign:\n")
	now, load := r.look(seen)
	require.False(t, load)
	write(t, path, "sign: {text: closed}\n")
	now, load = r.look(now)
	require.False(t, load)
	_, load = r.look(now)
	require.True(t, load)
}

// Whoever loads the configuration: the watch knows what the files held then. So it notices when somebody takes a change
// back that another one has had loaded.
func TestAChangeThatIsTakenBackIsLoadedToo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sign.yaml")
	write(t, path, "sign: {text: open}\n")
	w := watch(t, path, nil, poll)
	for range 20 {
		write(t, path, "sign: {text: closed}\n")
		_, err := w.live.Reload()
		require.NoError(t, err)
		require.Equal(t, "closed", w.text.Now().Text)
		write(t, path, "sign: {text: open}\n")
		require.Eventually(t, w.says("open"), patience, poll)
	}
}

// A file that held something and is empty was probably truncated by somebody who is about to write it.
func TestAFileThatBecomesEmptyIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sign.yaml")
	write(t, path, "sign: {text: open}\n")
	w := watch(t, path, nil, poll)
	write(t, path, "\n")
	require.Eventually(t, func() bool { return w.live.Status().Error != "" }, patience, poll)
	require.Equal(t, path+": cannot be read: it is empty now: write {} if you mean the defaults", w.live.Status().Error)
	require.True(t, w.says("open")())
	_, err := w.live.Reload()
	require.Error(t, err, "and again")
	write(t, path, "{}\n")
	require.Eventually(t, w.says(""), patience, poll)
}

// A pipe can be read once. What it said holds for every later configuration.
func TestAPipeIsReadOnce(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	go func() { _ = os.WriteFile(pipe, []byte("sign: {text: open}\n"), 0o600) }()
	w := watch(t, pipe, nil, poll)
	require.Equal(t, "open", w.text.Now().Text)
	_, err := w.live.Reload()
	require.NoError(t, err)
	require.Equal(t, "open", w.text.Now().Text)
}

// A file that turns into a pipe to which nobody writes would hold a reader up for ever.
func TestAFileThatIsNoFileAnyMoreIsRefusedAndHoldsNothingUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sign.yaml")
	write(t, path, "sign: {text: open}\n")
	w := watch(t, path, nil, poll)
	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	require.Eventually(t, func() bool {
		return strings.Contains(w.live.Status().Error, "it is no regular file any more")
	}, patience, poll)
	require.True(t, w.says("open")())
}

// What was refused is not loaded again before the file changes, however often it is looked at.
func TestAFileThatWasRefusedIsNotLoadedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sign.yaml")
	write(t, path, "sign: {text: open}\n")
	r := newReloader(signModules, configs.Source{Files: []string{path}})
	set, err := r.load()
	require.NoError(t, err)
	r.live = configs.NewLive(set, r.load)
	write(t, path, "sign: [\n")
	_, loaded := r.read()
	now, _ := r.look(loaded)
	now, load := r.look(now)
	require.True(t, load)
	r.reload()
	require.NotEmpty(t, r.live.Status().Error)
	_, load = r.look(now)
	require.False(t, load)
}

type rota struct {
	Names configs.List `key:"names" live:"true" doc:"Who is on duty."`
}

// A file that only a variable names is watched as well.
func TestAFileThatAnEntryOfAListNamesIsLoadedWhenItChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.txt")
	write(t, path, "ann\n")
	r := newReloader([]module.Module{{Name: "rota", Config: rota{}}},
		configs.Source{Environ: []string{"CAPTURE_ROTA__NAMES=file:" + path}})
	r.every = poll
	set, err := r.load()
	require.NoError(t, err)
	live := configs.NewLive(set, r.load)
	names, err := configs.Current[rota](live)
	require.NoError(t, err)
	r.start(live, zap.NewNop())
	defer r.stop()
	first := func() string { return names.Now().Names.Items()[0].Text }
	require.Equal(t, "ann", first())

	write(t, path, "bob\n")
	require.Eventually(t, func() bool { return first() == "bob" }, patience, poll)
	require.NoError(t, os.Remove(path))
	require.Eventually(t, func() bool { return live.Status().Refused() }, patience, poll)
	require.Equal(t, "bob", first())
	write(t, path, "cat\n")
	require.Eventually(t, func() bool { return first() == "cat" }, patience, poll)
	require.Equal(t, []string{"rota.names"}, live.Status().Changed)
}
