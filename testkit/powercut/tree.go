package powercut

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Tree is the content of a directory: the content of files by their paths. A path that ends in a slash is a
// directory's.
type Tree map[string][]byte

func isDirectory(path string) bool { return strings.HasSuffix(path, "/") }

// ReadTree reads a directory.
func ReadTree(dir string) (Tree, error) {
	tree := Tree{}
	files := os.DirFS(dir)
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || path == ".":
			return err
		case entry.IsDir():
			tree[path+"/"] = nil
			return nil
		}
		tree[path], err = fs.ReadFile(files, path)
		return err
	})
	return tree, err
}

// Write makes the directory dir, which must not exist, and lays out the tree in it.
func (t Tree) Write(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(t)) {
		target := filepath.Join(dir, path)
		var err error
		if isDirectory(path) {
			err = os.Mkdir(target, 0o700)
		} else {
			err = os.WriteFile(target, t[path], 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Differences says for a human where the trees differ.
func (t Tree) Differences(other Tree) []string {
	var all []string
	for path, content := range t {
		theirs, there := other[path]
		switch {
		case !there:
			all = append(all, path+" is in the first only")
		case !bytes.Equal(content, theirs):
			all = append(all, fmt.Sprintf("%s has %d bytes in the first and %d in the second, and they differ", path,
				len(content), len(theirs)))
		}
	}
	for path := range other {
		if _, there := t[path]; !there {
			all = append(all, path+" is in the second only")
		}
	}
	slices.Sort(all)
	return all
}
