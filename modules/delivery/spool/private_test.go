package spool

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/private"
)

func TestADirectoryThatOthersCanWriteToIsNoSpool(t *testing.T) {
	cfg := testConfig(t)
	require.NoError(t, os.MkdirAll(cfg.Dir, 0o700))
	require.NoError(t, os.Chmod(cfg.Dir, 0o777))
	_, err := Open(cfg, zap.NewNop())
	require.ErrorIs(t, err, private.ErrNotPrivate)
	require.ErrorContains(t, err, "chmod o-w "+cfg.Dir)
	require.NoFileExists(t, filepath.Join(cfg.Dir, lockName))
	require.NoError(t, os.Chmod(cfg.Dir, 0o700))
	require.NoError(t, openSpool(t, cfg).Close())
}

func TestTheSpoolFollowsNoSymbolicLink(t *testing.T) {
	cfg := testConfig(t)
	s := openSpool(t, cfg)
	appendAll(t, s.Log("topic"), "a")
	require.NoError(t, s.Close())
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	require.NoError(t, os.Mkdir(elsewhere, 0o700))

	// In the place of a log.
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(cfg.Dir, "other")))
	s = openSpool(t, cfg)
	_, err := s.Log("other").Append(t.Context(), payloads("x"))
	require.ErrorIs(t, err, private.ErrNotPrivate)
	require.NoError(t, s.Close())
	entries, err := os.ReadDir(elsewhere)
	require.NoError(t, err)
	require.Empty(t, entries)

	// In the place of a file.
	plant := func(name string) (mend func()) {
		path, there := filepath.Join(cfg.Dir, name), filepath.Join(elsewhere, "file")
		require.NoError(t, os.Rename(path, there))
		require.NoError(t, os.Symlink(there, path))
		return func() {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Rename(there, path))
		}
	}
	mend := plant(lockName)
	_, err = Open(cfg, zap.NewNop())
	require.ErrorIs(t, err, syscall.ELOOP)
	mend()

	mend = plant(filepath.Join("topic", cursorName))
	before, err := os.ReadFile(filepath.Join(elsewhere, "file"))
	require.NoError(t, err)
	s = openSpool(t, cfg)
	require.EqualValues(t, 1, s.Log("topic").Stats().UnreadableCursors)
	s.Log("topic").Done(1)
	_ = s.Close() // its error, if any, is that the cursor cannot be kept
	after, err := os.ReadFile(filepath.Join(elsewhere, "file"))
	require.NoError(t, err)
	require.Equal(t, before, after)
	mend()

	segments, err := filepath.Glob(filepath.Join(cfg.Dir, "topic", "*.log"))
	require.NoError(t, err)
	require.Len(t, segments, 1)
	plant(filepath.Join("topic", filepath.Base(segments[0])))
	s = openSpool(t, cfg)
	var chunk Chunk
	require.NoError(t, s.Log("topic").Read(&chunk, 1000))
	require.Empty(t, chunk.Records, "a link is no segment")
	require.NoError(t, s.Close())
}

func TestNothingIsMadeBehindALinkOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a link of another user")
	}
	cfg := testConfig(t)
	elsewhere := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(elsewhere, link))
	require.NoError(t, os.Lchown(link, 1, 1))
	cfg.Dir = filepath.Join(link, "spool")
	_, err := Open(cfg, zap.NewNop())
	require.ErrorIs(t, err, private.ErrNotPrivate)
	require.NoDirExists(t, filepath.Join(elsewhere, "spool"))
}

func TestTheFilesOfTheSpoolAreForItsUserOnly(t *testing.T) {
	cfg := testConfig(t)
	cfg.Dir = filepath.Join(cfg.Dir, "a", "spool")
	s := openSpool(t, cfg)
	appendAll(t, s.Log("topic"), "a")
	require.NoError(t, filepath.WalkDir(filepath.Dir(cfg.Dir), func(path string, entry fs.DirEntry, err error) error {
		require.NoError(t, err)
		found, err := entry.Info()
		require.NoError(t, err)
		require.Zero(t, found.Mode().Perm()&0o077, path)
		return nil
	}))
	require.NoError(t, s.Close())
}
