package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/private"
)

const (
	cursorName = "cursor"
	slotSize   = 20
	// slotApart puts the slots into different sectors of the disk, so that a torn write damages only one slot.
	slotApart  = 512
	cursorSize = 2 * slotApart

	// maxSeq is the largest number that a record can have. maxStart is the largest number that a cursor or the name of
	// a segment can have: the records behind it need numbers, too.
	maxSeq   = 1 << 62
	maxStart = 1 << 61
)

// checkpoint is how far a log has come.
type checkpoint struct {
	cursor    uint64 // the number of the first record that is not done
	committed uint64 // the number behind the last record that was committed; 0 if that is not known
}

func (c checkpoint) before(other checkpoint) bool {
	return c.cursor < other.cursor || c.cursor == other.cursor && c.committed < other.committed
}

// appendSlot appends a slot with the checkpoint.
func appendSlot(data []byte, c checkpoint) []byte {
	start := len(data)
	data = binary.LittleEndian.AppendUint64(data, c.cursor)
	data = binary.LittleEndian.AppendUint64(data, c.committed)
	return binary.LittleEndian.AppendUint32(data, crc32.Checksum(data[start:], castagnoli))
}

// decodeCursor returns the latest checkpoint in the content of a cursor file, and the slot that holds it. It reports
// false if no slot is valid.
func decodeCursor(data []byte) (latest checkpoint, slot int, ok bool) {
	for i := range 2 {
		if len(data) < i*slotApart+slotSize {
			break
		}
		fields := data[i*slotApart:][:slotSize]
		if crc32.Checksum(fields[:16], castagnoli) != binary.LittleEndian.Uint32(fields[16:]) {
			continue
		}
		found := checkpoint{
			cursor:    binary.LittleEndian.Uint64(fields),
			committed: binary.LittleEndian.Uint64(fields[8:]),
		}
		if found.cursor == 0 || found.cursor > maxStart || found.committed > maxStart {
			continue
		}
		if !ok || latest.before(found) {
			latest, slot, ok = found, i, true
		}
	}
	return latest, slot, ok
}

// cursorFile is the file in which a log keeps its checkpoints. It is not safe for concurrent use.
type cursorFile struct {
	*directory
	path string

	file   file        // nil until the first write
	info   fs.FileInfo // which file it is
	slot   int         // the slot that holds the last checkpoint
	saved  checkpoint  // the last checkpoint
	known  bool        // whether saved was read or written
	closed bool
	buf    []byte
}

// load reads the latest checkpoint, and reports whether a checkpoint could be read.
func (c *cursorFile) load() bool {
	f, err := c.fs.open(c.path)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // nothing was written
	data := make([]byte, cursorSize)
	n, err := f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	c.saved, c.slot, c.known = decodeCursor(data[:n])
	return c.known
}

// open makes sure that the file exists. It gives the file all the space that it will ever take, so that the cursor can
// move even on a full disk.
func (c *cursorFile) open() error {
	if c.file != nil {
		if !c.isGone() {
			return nil
		}
		c.log.Warn("the cursor of a log in the spool was removed while it was in use, and is made anew",
			zap.String("file", c.path))
		// Another file may be in its place. Its content says nothing about this log.
		_ = c.file.Close()
		c.file, c.known = nil, false
	}
	// The first file of a log is its cursor: no file is made behind a link.
	if err := private.IsDirectory(filepath.Dir(c.path)); err != nil {
		return err
	}
	f, err := c.fs.edit(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c.create()
	}
	if err != nil {
		return err
	}
	if !c.known {
		// Content that could not be read must not be taken for a checkpoint one day.
		if _, err := f.WriteAt(make([]byte, cursorSize), 0); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return c.use(f)
}

func (c *cursorFile) create() error {
	f, err := c.fs.create(c.path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, cursorSize), 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = c.fs.syncDir(filepath.Dir(c.path))
	}
	if err != nil {
		return errors.Join(err, f.Close(), c.fs.remove(c.path))
	}
	c.known = false
	return c.use(f)
}

func (c *cursorFile) use(f file) error {
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	c.file, c.info = f, info
	return nil
}

// save writes the checkpoint, unless it is the last one that was written or read.
func (c *cursorFile) save(now checkpoint) error {
	if c.closed || c.known && now == c.saved {
		return nil
	}
	if err := c.open(); err != nil {
		return err
	}
	if !c.known {
		return c.secure(now) // there is no earlier checkpoint to fall back on
	}
	return c.write(now)
}

// secure writes the checkpoint into both slots, one after the other, and makes each durable. After that, damage to one
// slot brings no older checkpoint back.
func (c *cursorFile) secure(now checkpoint) error {
	if c.closed {
		return nil
	}
	if err := c.open(); err != nil {
		return err
	}
	for range 2 {
		if err := c.write(now); err != nil {
			return err
		}
		if err := c.file.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// write writes the checkpoint into the slot that does not hold the last checkpoint.
func (c *cursorFile) write(now checkpoint) error {
	c.buf = appendSlot(c.buf[:0], now)
	slot := 1 - c.slot
	if _, err := c.file.WriteAt(c.buf, int64(slot*slotApart)); err != nil {
		return err
	}
	c.saved, c.slot, c.known = now, slot, true
	return nil
}

// isGone reports whether somebody has removed the open file, or put another in its place.
func (c *cursorFile) isGone() bool {
	return c.file != nil && errors.Is(c.isAt(c.path, c.info), fs.ErrNotExist)
}

// isUntouched reports whether the checkpoint is the one that load has read, and nothing was written since then.
func (c *cursorFile) isUntouched(now checkpoint) bool {
	return c.file == nil && c.known && now == c.saved
}

// close closes the file. save and secure do nothing after that.
func (c *cursorFile) close() error {
	c.closed = true
	if c.file == nil {
		return nil
	}
	err := c.file.Close()
	c.file = nil
	return err
}
