// Package private keeps the files of the service from other users of the machine.
//
// A user who can write to a directory of the service can put a symbolic link where the service will write a file. So a
// module that keeps data in a directory makes the directory with the mode 0700, and asks Check before it uses the
// directory. The decision and what it means on Kubernetes: docs/decisions/0022-who-may-write-to-the-data.md.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ErrNotPrivate means that somebody else could put files into a directory.
var ErrNotPrivate = errors.New("not private")

// linksTogether is how many symbolic links a path may lead through.
const linksTogether = 40

// Check returns nil if only this process's user, root, and the group of a volume can put files into an existing
// directory. The error wraps ErrNotPrivate otherwise, and says what to do:
//
//   - Other users must not be able to write to the directory.
//   - Its group must not be able to either, unless the directory has the set-group-ID bit and a group of this process,
//     which is what Kubernetes makes of a volume of a pod with fsGroup, or the group is the user's private one.
//   - The directory, and each symbolic link on the way to it, belongs to this process's user or to root.
//
// The directories above are not checked. Who can write to those can put another directory in the place of this one,
// which then belongs to that user.
func Check(dir string) error {
	path, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	me, err := self()
	if err != nil {
		return err
	}
	found, err := me.follow(path)
	if err != nil {
		return err
	}
	return me.judge(dir, found)
}

// IsDirectory returns nil if there is a directory at the path itself, and not a symbolic link to one.
func IsDirectory(path string) error {
	found, err := os.Lstat(path)
	if err == nil && !found.IsDir() {
		err = fmt.Errorf("%s is a %s where a directory was expected: remove it: %w", path, kind(found), ErrNotPrivate)
	}
	return err
}

func kind(file fs.FileInfo) string {
	if file.Mode()&fs.ModeSymlink != 0 {
		return "symbolic link"
	}
	return "file"
}

// identity is the user of this process, with its groups.
type identity struct {
	user   uint32
	groups []int
}

func self() (identity, error) {
	groups, err := os.Getgroups()
	if err != nil {
		return identity{}, fmt.Errorf("list the groups of this process: %w", err)
	}
	return identity{user: uint32(os.Geteuid()), groups: append(groups, os.Getegid())}, nil
}

// trusts reports whether a file belongs to this user or to root.
func (me identity) trusts(user uint32) bool { return user == me.user || user == 0 }

// follow returns the file that an absolute path leads to. Each symbolic link on the way must belong to a trusted user.
func (me identity) follow(path string) (fs.FileInfo, error) {
	at, rest := "/", strings.Split(path, "/")
	found, err := os.Lstat(at)
	for links := 0; err == nil && len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		next := filepath.Join(at, name)
		if found, err = os.Lstat(next); err != nil {
			break
		}
		if found.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if owner := ownerOf(found); !me.trusts(owner.Uid) {
			return nil, fmt.Errorf("%s is a symbolic link of user %d, and this process is user %d: "+
				"remove it, or name the directory that is meant: %w", next, owner.Uid, me.user, ErrNotPrivate)
		}
		if links++; links > linksTogether {
			return nil, &fs.PathError{Op: "follow", Path: path, Err: syscall.ELOOP}
		}
		target, err := os.Readlink(next)
		if err != nil {
			return nil, err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return found, err
}

func (me identity) judge(dir string, found fs.FileInfo) error {
	owner, mode := ownerOf(found), found.Mode()
	byGroup := mode&fs.ModeSetgid != 0 && slices.Contains(me.groups, int(owner.Gid)) ||
		owner.Gid == me.user && owner.Uid == me.user
	switch {
	case !found.IsDir():
		return fmt.Errorf("%s is no directory", dir)
	case mode&0o002 != 0:
		return fmt.Errorf("all users of this machine can write to %s (mode %04o): chmod o-w %s, or name a directory "+
			"below it, which the service makes itself: %w", dir, mode.Perm(), dir, ErrNotPrivate)
	case !me.trusts(owner.Uid) && !(byGroup && mode&0o020 != 0):
		return fmt.Errorf("%s belongs to user %d, and this process is user %d: chown it to this user, and chmod 700 "+
			"it: %w", dir, owner.Uid, me.user, ErrNotPrivate)
	case mode&0o020 != 0 && !byGroup:
		return fmt.Errorf("group %d can write to %s (mode %04o): chmod g-w %s: %w",
			owner.Gid, dir, mode.Perm(), dir, ErrNotPrivate)
	}
	return nil
}

func ownerOf(file fs.FileInfo) *syscall.Stat_t { return file.Sys().(*syscall.Stat_t) }
