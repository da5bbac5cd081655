package private

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// file is what a system says of a directory.
type file struct {
	mode fs.FileMode
	stat syscall.Stat_t
}

func (f *file) Name() string       { return "data" }
func (f *file) Size() int64        { return 0 }
func (f *file) Mode() fs.FileMode  { return f.mode }
func (f *file) ModTime() time.Time { return time.Time{} }
func (f *file) IsDir() bool        { return f.mode.IsDir() }
func (f *file) Sys() any           { return &f.stat }

func TestADirectoryThatOthersCanWriteToIsRefused(t *testing.T) {
	t.Parallel()
	me := identity{user: 1000, groups: []int{1000, 2000}}
	const dir, setgid = fs.ModeDir, fs.ModeDir | fs.ModeSetgid
	for name, test := range map[string]struct {
		mode        fs.FileMode
		user, group uint32
		want        string
	}{
		"what the service makes":         {dir | 0o700, 1000, 1000, ""},
		"made by hand":                   {dir | 0o755, 1000, 100, ""},
		"with a private group":           {dir | 0o775, 1000, 1000, ""},
		"made by root":                   {dir | 0o755, 0, 0, ""},
		"a volume with fsGroup":          {setgid | 0o775, 0, 2000, ""},
		"on a volume with fsGroup":       {setgid | 0o770, 1000, 2000, ""},
		"of the user before, by fsGroup": {setgid | 0o770, 1001, 2000, ""},
		"everybody": {
			dir | 0o777, 1000, 1000,
			"all users of this machine can write to data (mode 0777): chmod o-w",
		},
		"everybody, sticky": {dir | fs.ModeSticky | 0o777, 0, 0, "chmod o-w data"},
		"everybody, on a volume": {
			setgid | 0o777, 0, 2000,
			"or name a directory below it, which the service makes itself",
		},
		"a group": {
			dir | 0o770, 1000, 2000,
			"group 2000 can write to data (mode 0770): chmod g-w data",
		},
		"a group of others, with the bit": {setgid | 0o770, 1000, 3000, "group 3000 can write to data"},
		"a group of root's":               {dir | 0o775, 0, 1000, "group 1000 can write to data"},
		"another user": {
			dir | 0o755, 1001, 2000,
			"data belongs to user 1001, and this process is user 1000: chown it",
		},
		"another user, a bit for nothing": {setgid | 0o755, 1001, 2000, "data belongs to user 1001"},
		"no directory":                    {0o600, 1000, 1000, "data is no directory"},
	} {
		err := me.judge("data", &file{test.mode, syscall.Stat_t{Uid: test.user, Gid: test.group}})
		if test.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, test.want, name)
	}
}

func TestADirectoryOnTheDiskIsChecked(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	require.ErrorIs(t, Check(dir), fs.ErrNotExist)
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, Check(dir))
	require.NoError(t, IsDirectory(dir))
	require.NoError(t, os.Chmod(dir, 0o777))
	require.ErrorIs(t, Check(dir), ErrNotPrivate)
}

func TestOnlyTheOwnersLinksLeadToADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "disk", "data"), 0o700))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink("disk", link))
	path := filepath.Join(link, "data")
	require.NoError(t, Check(path))
	require.ErrorContains(t, IsDirectory(link), "is a symbolic link where a directory was expected")

	other := identity{user: uint32(os.Geteuid()) + 2}
	_, err := other.follow(path)
	if os.Geteuid() == 0 { // root's links are trusted
		require.NoError(t, err)
		require.NoError(t, os.Lchown(link, 1, 1))
		_, err = other.follow(path)
	}
	require.ErrorContains(t, err, link+" is a symbolic link of user ")
	require.ErrorIs(t, err, ErrNotPrivate)

	loop := filepath.Join(dir, "loop")
	require.NoError(t, os.Symlink(loop, loop))
	require.ErrorIs(t, Check(loop), syscall.ELOOP)
}
