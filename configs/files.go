package configs

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
)

// FilesDigest is a digest of what the files hold, or of why one cannot be read. Whoever compares two of them sees every
// change, since the files are read each time: neither a symbolic link that is exchanged, as Kubernetes does it, nor a
// clock that is too coarse hides one. It is meant for a few small files.
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
