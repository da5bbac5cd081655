package configs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxFile is the largest configuration file, certificate or password that is read. The service reads every file again
// each second.
const maxFile = 4 << 20

// contents is what a file held when it was read, or why it could not be read.
type contents struct {
	data []byte
	err  error
	// once is set for a file that can be read only once, such as a pipe.
	once bool
}

// readContents reads a file. before is what an earlier reading of the file has found; nil: this is the first one. A
// later reading takes a file that can be read only once as it was.
func readContents(path string, before *contents) contents {
	if before != nil && before.once {
		return *before
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return contents{err: cause(err)}
	case info.Mode().IsRegular():
	case info.IsDir():
		return contents{err: errors.New("it is a directory")}
	case before != nil:
		return contents{err: errors.New("it is no regular file any more")}
	}
	file, err := os.Open(path)
	if err != nil {
		return contents{err: cause(err)}
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	_ = file.Close()
	switch {
	case err != nil:
		return contents{err: cause(err)}
	case len(data) > maxFile:
		return contents{err: fmt.Errorf("it is larger than %s", ByteSize(maxFile))}
	}
	return contents{data: data, once: !info.Mode().IsRegular()}
}

// orTruncated refuses a configuration file that held something before and is empty now, because somebody who writes the
// file has probably just truncated it.
func (c contents) orTruncated(before contents) contents {
	if c.err == nil && len(bytes.TrimSpace(c.data)) == 0 && len(bytes.TrimSpace(before.data)) > 0 {
		return contents{data: before.data, err: errors.New("it is empty now: write {} if you mean the defaults")}
	}
	return c
}

// cause leaves the operation and the path out of an error of the file system.
func cause(err error) error {
	var inner *fs.PathError
	if errors.As(err, &inner) {
		return inner.Err
	}
	return err
}

// digestOf is a digest of what files hold, or of why one cannot be read.
func digestOf(files []contents) [sha256.Size]byte {
	all := sha256.New()
	add := func(kind byte, content []byte) {
		all.Write(binary.LittleEndian.AppendUint64([]byte{kind}, uint64(len(content))))
		all.Write(content)
	}
	for _, file := range files {
		if file.err != nil {
			add(1, []byte(file.err.Error()))
		} else {
			add(0, file.data)
		}
	}
	return [sha256.Size]byte(all.Sum(nil))
}

// FilesDigest is a digest of what the files hold, or of why one cannot be read. Two digests differ if and only if the
// content does: FilesDigest reads the files each time, so that neither a symbolic link that Kubernetes exchanges nor a
// coarse clock hides a change. It is meant for a few small files.
func FilesDigest(paths []string) [sha256.Size]byte {
	files := make([]contents, len(paths))
	for i, path := range paths {
		files[i] = readContents(path, nil)
	}
	return digestOf(files)
}
