package configs

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
)

// FilesDigest returns a digest of the contents of the files. For a file that cannot be read, it uses the error instead.
// Two digests differ after any change, because the files are read each time: an exchanged symbolic link, as Kubernetes
// uses it, changes the digest, and so does a change that a coarse clock would hide. FilesDigest is meant for a few
// small files.
func FilesDigest(paths []string) [sha256.Size]byte {
	all := sha256.New()
	add := func(kind byte, content []byte) {
		all.Write(binary.LittleEndian.AppendUint64([]byte{kind}, uint64(len(content))))
		all.Write(content)
	}
	for _, path := range paths {
		if content, err := os.ReadFile(path); err != nil {
			add(1, []byte(err.Error()))
		} else {
			add(0, content)
		}
	}
	return [sha256.Size]byte(all.Sum(nil))
}
