package powercut

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// script plays calls on a disk.
type script struct {
	t    *testing.T
	disk *Disk
	fd   int64
}

func newScript(t *testing.T) *script {
	disk, err := NewDisk(t.TempDir())
	require.NoError(t, err)
	return &script{t: t, disk: disk, fd: 2}
}

func quote(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, `\x%02x`, c)
	}
	b.WriteByte('"')
	return b.String()
}

func (s *script) begin(result int64, name string, args ...string) *Call {
	s.t.Helper()
	c := &Call{Name: name, Args: args, Result: result, Failed: result < 0}
	_, err := s.disk.Apply(Step{Call: c})
	require.NoError(s.t, err)
	return c
}

func (s *script) end(c *Call) {
	s.t.Helper()
	_, err := s.disk.Apply(Step{Call: c, Ended: true})
	require.NoError(s.t, err)
}

func (s *script) call(result int64, name string, args ...string) {
	s.t.Helper()
	s.end(s.begin(result, name, args...))
}

func (s *script) open(path, flags string) string {
	s.fd++
	s.call(s.fd, "openat", "AT_FDCWD", quote(path), flags, "0600")
	return fmt.Sprint(s.fd)
}

func (s *script) create(path string) string { return s.open(path, "O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC") }

func (s *script) write(fd string, at int, data string) *Call {
	return s.begin(int64(len(data)), "pwrite64", fd, quote(data), fmt.Sprint(len(data)), fmt.Sprint(at))
}

func (s *script) syncDir(path string) {
	fd := s.open(path, "O_RDONLY|O_CLOEXEC")
	s.call(0, "fsync", fd)
	s.call(0, "close", fd)
}

func (s *script) after(fate Fate) Tree { return s.disk.After(fate, rand.New(rand.NewPCG(1, 1))) }

// possible returns, as text, every tree that a mixed fate gives in many attempts.
func (s *script) possible() map[string]bool {
	all := map[string]bool{}
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		all[fmt.Sprintf("%q", s.disk.After(Mixed, random))] = true
	}
	return all
}

func (s *script) requirePossible(trees ...Tree) {
	s.t.Helper()
	want := map[string]bool{}
	for _, tree := range trees {
		want[fmt.Sprintf("%q", tree)] = true
	}
	require.Equal(s.t, want, s.possible())
}

func TestContentIsCertainWhenASyncHasEndedThatBeganAfterTheWrite(t *testing.T) {
	s := newScript(t)
	fd := s.create("file")
	s.syncDir(".")
	require.Empty(t, Tree{"file": {}}.Differences(s.after(Everything)))
	s.end(s.write(fd, 0, "one"))
	second := s.write(fd, 3, "two")
	sync := s.begin(0, "fsync", fd)
	s.end(second)
	require.Empty(t, s.after(Nothing)["file"], "the sync has not ended")
	s.end(sync)
	require.Equal(t, "one", string(s.after(Nothing)["file"]), "the second write had not ended when the sync began")
	require.Equal(t, "onetwo", string(s.after(Everything)["file"]))
	s.call(0, "fdatasync", fd)
	require.Equal(t, "onetwo", string(s.after(Nothing)["file"]))
	require.Empty(t, s.disk.Pending())
}

func TestANameIsCertainWhenItsDirectoryAndAllAboveAreSynced(t *testing.T) {
	s := newScript(t)
	s.call(0, "mkdirat", "AT_FDCWD", quote("a"), "0700")
	s.call(0, "mkdirat", "AT_FDCWD", quote("./a/b"), "0700")
	fd := s.create("a/b/file")
	s.end(s.write(fd, 0, "x"))
	s.call(0, "fsync", fd)
	require.Empty(t, s.after(Nothing))
	s.syncDir("a/b")
	s.syncDir("a")
	require.Empty(t, s.after(Nothing), "nobody has synced the directory that a is in")
	require.Equal(t, []string{"a made"}, s.disk.Pending())
	s.syncDir(".")
	require.Equal(t, Tree{"a/": nil, "a/b/": nil, "a/b/file": []byte("x")}, s.after(Nothing))
}

func TestWithAJournalASyncOfAFileMakesItsNameCertain(t *testing.T) {
	s := newScript(t)
	s.disk.Journal = true
	s.create("first")
	fd := s.create("second")
	s.create("third")
	s.requirePossible(Tree{}, Tree{"first": {}}, Tree{"first": {}, "second": {}},
		Tree{"first": {}, "second": {}, "third": {}})
	s.call(0, "fsync", fd)
	s.requirePossible(Tree{"first": {}, "second": {}}, Tree{"first": {}, "second": {}, "third": {}})
}

func TestARemovedFileMayComeBackWithWhatWasSynced(t *testing.T) {
	s := newScript(t)
	fd := s.create("file")
	s.end(s.write(fd, 0, "x"))
	s.call(0, "fsync", fd)
	s.syncDir(".")
	s.call(-1, "unlinkat", "AT_FDCWD", quote("other"), "0")
	s.call(0, "unlinkat", "AT_FDCWD", quote("file"), "0")
	s.requirePossible(Tree{"file": []byte("x")}, Tree{})
	s.create("file")
	s.requirePossible(Tree{"file": []byte("x")}, Tree{"file": {}}, Tree{})
	s.syncDir(".")
	s.requirePossible(Tree{"file": {}})
}

func TestARenameHappensAsAWhole(t *testing.T) {
	s := newScript(t)
	old := s.create("file")
	s.end(s.write(old, 0, "old"))
	s.call(0, "fsync", old)
	s.syncDir(".")
	temporary := s.open("file.tmp", "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC")
	s.syncDir(".")
	s.call(3, "write", temporary, quote("new"), "3")
	s.call(0, "fsync", temporary)
	s.call(0, "renameat", "AT_FDCWD", quote("file.tmp"), "AT_FDCWD", quote("file"))
	s.requirePossible(Tree{"file": []byte("old"), "file.tmp": []byte("new")}, Tree{"file": []byte("new")})
	s.syncDir(".")
	s.requirePossible(Tree{"file": []byte("new")})
}

func TestARenameToAnotherDirectoryIsCertainWithEither(t *testing.T) {
	s := newScript(t)
	s.call(0, "mkdir", quote("a"), "0700")
	s.create("file")
	s.syncDir(".")
	s.call(0, "rename", quote("file"), quote("a/file"))
	s.call(0, "linkat", "AT_FDCWD", quote("a/file"), "AT_FDCWD", quote("again"), "0")
	s.syncDir("a")
	s.requirePossible(Tree{"a/": nil, "a/file": {}}, Tree{"a/": nil, "a/file": {}, "again": {}})
}

func TestAWriteMayBeTornAtSectors(t *testing.T) {
	s := newScript(t)
	fd := s.create("file")
	s.end(s.write(fd, 0, strings.Repeat("a", 3*sector)))
	s.call(0, "fsync", fd)
	s.syncDir(".")
	s.end(s.write(fd, 100, strings.Repeat("b", 2*sector)))
	s.end(s.write(fd, 2*sector+60, strings.Repeat("c", 100)))
	shapes := map[string]bool{}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		content := s.disk.After(Mixed, random)["file"]
		require.Len(t, content, 3*sector)
		shape := ""
		for _, at := range []int{50, 200, sector + 50, 2*sector + 50, 2*sector + 150} {
			shape += string(content[at])
		}
		shapes[shape] = true
	}
	want := map[string]bool{}
	for _, first := range []string{"aa", "ab"} {
		for _, second := range []string{"a", "b"} {
			for _, third := range []string{"aa", "ba", "bc"} { // never "ac"
				want[first+second+third] = true
			}
		}
	}
	require.Equal(t, want, shapes)
}

func TestALongerFileMayHaveZerosForContent(t *testing.T) {
	s := newScript(t)
	fd := s.open("file", "O_WRONLY|O_CREAT|O_APPEND")
	s.syncDir(".")
	s.call(2, "write", fd, quote("ab"), "2")
	s.call(0, "fsync", fd)
	s.call(2, "write", fd, quote("cd"), "2")
	s.requirePossible(Tree{"file": []byte("ab")}, Tree{"file": []byte("abcd")}, Tree{"file": []byte("ab\x00\x00")},
		Tree{"file": []byte("abc")}, Tree{"file": []byte("ab\x00")})
	require.Contains(t, []string{"ab", "ab\x00", "ab\x00\x00"}, string(s.after(NamesOnly)["file"]))
}

func TestACutIsUndoneOrDone(t *testing.T) {
	s := newScript(t)
	fd := s.create("file")
	s.syncDir(".")
	s.end(s.write(fd, 0, "abcd"))
	s.call(0, "fsync", fd)
	s.call(0, "ftruncate", fd, "2")
	s.requirePossible(Tree{"file": []byte("abcd")}, Tree{"file": []byte("ab")})
	s.call(0, "fsync", fd)
	s.requirePossible(Tree{"file": []byte("ab")})
	s.call(0, "fallocate", fd, "0", "0", "3")
	s.requirePossible(Tree{"file": []byte("ab")}, Tree{"file": []byte("ab\x00")})
	s.call(0, "fsync", fd)
	s.open("file", "O_WRONLY|O_TRUNC")
	s.requirePossible(Tree{"file": []byte("ab\x00")}, Tree{"file": {}})
	s.end(s.write(fd, 1, "x"))
	s.requirePossible(Tree{"file": []byte("ab\x00")}, Tree{"file": {}}, Tree{"file": []byte("\x00x")})
}

func TestFilesAreToldApartByTheirDescriptors(t *testing.T) {
	s := newScript(t)
	fd := s.open("file", "O_WRONLY|O_CREAT")
	s.call(40, "dup", fd)
	s.call(1, "write", fd, quote("a"), "1")
	s.call(1, "write", "40", quote("b"), "1")
	s.call(0, "close", fd)
	s.call(1, "write", fd, quote("x"), "1") // a socket has the number now
	s.call(9, "lseek", "40", "9", "SEEK_SET")
	s.call(1, "write", "40", quote("c"), "1")
	require.Equal(t, "ab\x00\x00\x00\x00\x00\x00\x00c", string(s.after(Everything)["file"]))
}

func TestTheNextProcessFindsWhatTheLastOneHasWritten(t *testing.T) {
	s := newScript(t)
	fd := s.create("file")
	s.syncDir(".")
	c := &Call{Name: "pwrite64", Args: []string{fd, quote("abcd"), "4", "0"}, Unanswered: true}
	_, err := s.disk.Apply(Step{Call: c})
	require.NoError(t, err)
	steps := s.disk.Resolve(Tree{"file": []byte("ab")}, time.Time{})
	require.Len(t, steps, 1)
	require.EqualValues(t, 2, c.Result)
	s.end(steps[0].Call)
	require.Equal(t, "ab", string(s.after(Everything)["file"]))

	open := &Call{Run: 1, Name: "openat", Args: []string{"AT_FDCWD", quote("file"), "O_RDWR"}, Result: 3}
	sync := &Call{Run: 1, Name: "fsync", Args: []string{"3"}}
	for _, step := range []Step{{Call: open}, {Call: open, Ended: true}, {Call: sync}, {Call: sync, Ended: true}} {
		mine, err := s.disk.Apply(step)
		require.NoError(t, err)
		require.True(t, mine)
	}
	require.Equal(t, "ab", string(s.after(Nothing)["file"]))
}

func TestWhatTheModelDoesNotKnowIsAnError(t *testing.T) {
	s := newScript(t)
	fd := s.create("file")
	for _, c := range []*Call{
		{Name: "openat", Args: []string{"AT_FDCWD", quote("new"), "O_RDWR|O_CREAT|O_SYNC", "0600"}, Result: 9},
		{Name: "openat", Args: []string{"99", quote("new"), "O_RDWR", "0600"}, Result: 9},
		{Name: "openat", Args: []string{"AT_FDCWD", quote("missing"), "O_RDWR"}, Result: 9},
		{Name: "symlink", Args: []string{quote("file"), quote("new")}},
		{Name: "renameat2", Args: []string{"AT_FDCWD", quote("file"), "AT_FDCWD", quote("b"), "RENAME_EXCHANGE"}},
		{Name: "rename", Args: []string{quote("file"), quote("/elsewhere")}},
		{Name: "truncate", Args: []string{quote("file"), "0"}},
		{Name: "fallocate", Args: []string{fd, "FALLOC_FL_PUNCH_HOLE", "0", "1"}},
		{Name: "pwritev2", Args: []string{fd, "[]", "0", "0", "RWF_DSYNC"}},
		{Name: "copy_file_range", Args: []string{"9", "NULL", fd, "NULL", "1", "0"}, Result: 1},
		{Name: "unlink", Args: []string{quote("missing")}},
		{Name: "io_uring_setup"},
		{Name: "write", Args: []string{fd, quote("a"), "2"}, Result: 2},
	} {
		_, err := s.disk.Apply(Step{Call: c})
		require.Error(t, err, "%s %v", c.Name, c.Args)
	}
	for _, c := range []*Call{
		{Name: "openat", Args: []string{"AT_FDCWD", quote("/etc/passwd"), "O_RDONLY"}, Result: 9},
		{Name: "write", Args: []string{"2", quote("a"), "1"}, Result: 1},
		{Name: "unlink", Args: []string{quote("/elsewhere")}},
	} {
		mine, err := s.disk.Apply(Step{Call: c})
		require.NoError(t, err)
		require.False(t, mine, "%s %v", c.Name, c.Args)
	}
}

func TestATreeIsWrittenAndReadAgain(t *testing.T) {
	tree := Tree{"a/": nil, "a/b/": nil, "a/b/file": []byte("x"), "empty": {}}
	dir := filepath.Join(t.TempDir(), "laid")
	require.NoError(t, tree.Write(dir))
	again, err := ReadTree(dir)
	require.NoError(t, err)
	require.Empty(t, tree.Differences(again))
	require.ErrorIs(t, tree.Write(dir), os.ErrExist)

	disk, err := NewDisk(dir)
	require.NoError(t, err)
	require.Empty(t, tree.Differences(disk.After(Nothing, rand.New(rand.NewPCG(1, 1)))),
		"what was there before is certain")

	require.Equal(t, []string{
		"a/b/file has 1 bytes in the first and 2 in the second, and they differ", "empty is in the first only",
		"more is in the second only",
	}, tree.Differences(Tree{"a/": nil, "a/b/": nil, "a/b/file": []byte("xy"), "more": {}}))
}
