package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"go.uber.org/zap"
)

const (
	cursorName = "cursor"
	slotSize   = 20
	// slotApart puts the slots into different sectors, so that a write that is cut off damages one of them.
	slotApart  = 512
	cursorSize = 2 * slotApart

	// maxSeq bounds what is believed of a number in a record, and maxStart of one in a cursor or a segment's name, from which there
	// is still room to count on.
	maxSeq   = 1 << 62
	maxStart = 1 << 61
)

// mark is how far a log had come.
type mark struct {
	cursor    uint64 // the first record that is not done
	committed uint64 // the first that was not committed; 0 if that is not known
}

func (m mark) before(other mark) bool {
	return m.cursor < other.cursor || m.cursor == other.cursor && m.committed < other.committed
}

// appendSlot appends the mark as a slot.
func appendSlot(data []byte, m mark) []byte {
	start := len(data)
	data = binary.LittleEndian.AppendUint64(data, m.cursor)
	data = binary.LittleEndian.AppendUint64(data, m.committed)
	return binary.LittleEndian.AppendUint32(data, crc32.Checksum(data[start:], castagnoli))
}

// decodeCursor returns the mark that a cursor file's content stands for and in which slot it is, or false if no slot is valid.
func decodeCursor(data []byte) (m mark, slot int, ok bool) {
	for i := range 2 {
		if len(data) < i*slotApart+slotSize {
			break
		}
		fields := data[i*slotApart:][:slotSize]
		if crc32.Checksum(fields[:16], castagnoli) != binary.LittleEndian.Uint32(fields[16:]) {
			continue
		}
		found := mark{cursor: binary.LittleEndian.Uint64(fields), committed: binary.LittleEndian.Uint64(fields[8:])}
		if found.cursor == 0 || found.cursor > maxStart || found.committed > maxStart {
			continue
		}
		if !ok || m.before(found) {
			m, slot, ok = found, i, true
		}
	}
	return m, slot, ok
}

// cursorFile is a log's cursor on the disk. It is not safe for concurrent use.
type cursorFile struct {
	*directory
	path string

	file   file        // nil until it is needed
	info   fs.FileInfo // which file that is
	slot   int         // where the last mark is
	saved  mark
	known  bool // whether saved was read or written
	closed bool
	buf    []byte
}

// load reads the mark. It reports whether there is one that can be read.
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
	m, slot, ok := decodeCursor(data[:n])
	c.saved, c.slot, c.known = m, slot, ok
	return ok
}

// open makes sure that the file is there, with all the space that it will ever take: a disk that fills up does not keep the
// cursor from moving.
func (c *cursorFile) open() error {
	if c.file != nil {
		if !c.isGone() {
			return nil
		}
		c.log.Warn("the cursor of a log in the spool was removed while it was in use, and is made anew", zap.String("file", c.path))
		// What is in another file that may be in its place is nothing to go by.
		_ = c.file.Close()
		c.file, c.known = nil, false
	}
	f, err := c.fs.edit(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c.create()
	}
	if err != nil {
		return err
	}
	if !c.known {
		// A slot that could not be read must not count one day.
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

// save writes the mark, if it is another than the last, into the slot that does not hold the last one.
func (c *cursorFile) save(m mark) error {
	if c.closed || c.known && m == c.saved {
		return nil
	}
	return c.write(m)
}

// isGone reports whether the file that the cursor was written to was removed.
func (c *cursorFile) isGone() bool {
	return c.file != nil && errors.Is(c.isAt(c.path, c.info), fs.ErrNotExist)
}

// isOld reports whether the mark was read from the file, which was not written since.
func (c *cursorFile) isOld(m mark) bool { return c.file == nil && c.known && m == c.saved }

func (c *cursorFile) write(m mark) error {
	if err := c.open(); err != nil {
		return err
	}
	c.buf = appendSlot(c.buf[:0], m)
	slot := 1 - c.slot
	if _, err := c.file.WriteAt(c.buf, int64(slot*slotApart)); err != nil {
		return err
	}
	c.saved, c.slot, c.known = m, slot, true
	return nil
}

// secure makes the mark durable in both slots, one after the other, so that no damage to one of them brings an older mark back.
func (c *cursorFile) secure(m mark) error {
	if c.closed {
		return nil
	}
	for range 2 {
		if err := c.write(m); err != nil {
			return err
		}
		if err := c.file.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// close makes every further save do nothing.
func (c *cursorFile) close() error {
	c.closed = true
	if c.file == nil {
		return nil
	}
	err := c.file.Close()
	c.file = nil
	return err
}
