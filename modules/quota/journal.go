package quota

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/private"
)

// The file of the journal. It is mapped into memory, so a store to it costs no system call, and what is stored is the
// kernel's: a kill of the process loses nothing. A crash of the machine may lose it, and then nothing in the file is
// used (see usable). All numbers have the order of bytes of the machine, since no other machine may use the file.
//
//	header   4096 bytes
//	  0      magic, 8 bytes
//	  8      version and size of a slot, 4 bytes each
//	  16     the serial number of the last account, 8 bytes
//	  24     1 if the file was closed in an orderly way, 8 bytes
//	  32     the node's name, 32 letters and digits
//	  64     the boot of the machine, 40 bytes
//	  104    the device and the inode of the file, 8 bytes each
//	  120    a checksum of the bytes 0-15 and 32-119, 4 bytes
//	slots    128 bytes each: see slot
const (
	journalMagic   = "capquota"
	journalVersion = 1
	headerSize     = 4096
	slotSize       = int64(unsafe.Sizeof(slot{}))
	nodeNameSize   = 32
	bootSize       = 40
	maxToken       = 64

	journalFile = "accounts"
	journalLock = "lock"
)

var (
	errJournalInUse = errors.New("another process uses this directory")
	errLinked       = errors.New("it is no file of this service")
)

// slot is an account of the node: what it was granted of a counter, what it gave back, and what it holds. The order in
// which these change makes sure that at no moment granted - returned - held, which is what was spent, is less than what
// was let through: held falls before an event goes on, granted rises before held does, and returned rises after held
// has fallen. Only the three numbers change as long as the slot is in use; the token's lock guards them.
//
// The serial number is the account's name for the store, behind that of the node. No two accounts of a node have the
// same, and a later one has a larger one. So an account that the node has given up, and makes again in the same window,
// is a newer one for the store: what the first had is spent.
type slot struct {
	inUse                   atomic.Uint64
	granted, returned, held atomic.Int64
	start, end              int64 // seconds since 1970
	serial                  uint64
	resource, period, size  uint8
	_                       uint8
	sum                     uint32 // of the fields from start to size, and of the token
	token                   [maxToken]byte
}

var sumTable = crc32.MakeTable(crc32.Castagnoli)

func (s *slot) checksum() uint32 {
	var fixed [27]byte
	binary.LittleEndian.PutUint64(fixed[0:], uint64(s.start))
	binary.LittleEndian.PutUint64(fixed[8:], uint64(s.end))
	binary.LittleEndian.PutUint64(fixed[16:], s.serial)
	fixed[24], fixed[25], fixed[26] = s.resource, s.period, s.size
	return crc32.Update(crc32.Checksum(fixed[:], sumTable), sumTable, s.token[:])
}

// sound reports whether the slot of a file holds an account that this package can have written.
func (s *slot) sound() bool {
	granted, returned, held := s.granted.Load(), s.returned.Load(), s.held.Load()
	return s.inUse.Load() == 1 && s.sum == s.checksum() && s.size > 0 && s.size <= maxToken &&
		int(s.resource) < events.ResourceCount && events.Period(s.period) <= events.PerMonth && s.start < s.end &&
		returned >= 0 && held >= 0 && granted-returned >= held
}

// journal has the accounts of a node. If it has no file, they are in memory only. It is safe for concurrent use, except
// for the slots themselves.
type journal struct {
	node string
	path string
	// fault says why there is no file. It is nil if there is one.
	fault error

	mapped []byte // nil without a file
	lock   *flock.Flock
	slots  []slot
	last   *atomic.Uint64 // serial number of the last account

	mu   sync.Mutex
	free []uint32 // indexes of free slots, the next one last
	used int
}

// openJournal opens the journal in the directory, with room for so many accounts. Without a file that can be used the
// journal is in memory only, and its fault says why. found are the accounts that the file has.
func openJournal(dir string, room int) (j *journal, found []*slot) {
	j = &journal{path: filepath.Join(dir, journalFile)}
	if err := j.open(dir, room); err != nil {
		j.release()
		j.fault = fmt.Errorf("open %s: %w", j.path, err)
		j.node, j.slots, j.last = newNodeName(), make([]slot, room), new(atomic.Uint64)
	}
	for i := len(j.slots) - 1; i >= 0; i-- {
		if s := &j.slots[i]; s.sound() {
			found = append(found, s)
			j.used++
		} else {
			s.inUse.Store(0)
			j.free = append(j.free, uint32(i))
		}
	}
	return j, found
}

func (j *journal) open(dir string, room int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil { //nolint:gosec // it is the operator's own directory
		return err
	}
	if err := private.Check(dir); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(dir, journalLock), flock.SetPermissions(0o600),
		flock.SetFlag(os.O_CREATE|os.O_RDONLY|syscall.O_NOFOLLOW))
	locked, err := lock.TryLock()
	if err == nil && !locked {
		err = errJournalInUse
	}
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	j.lock = lock
	file, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // the mapping stays
	info, err := file.Stat()
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || stat.Nlink != 1 || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return errLinked
	}
	// The file never becomes shorter: the accounts that it has are kept, even if there are to be fewer.
	size := max(info.Size(), headerSize+int64(room)*slotSize)
	size -= (size - headerSize) % slotSize
	if err := reserve(file, info.Size(), size); err != nil {
		return err
	}
	if j.mapped, err = unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map it into memory: %w", err)
	}
	j.slots = unsafe.Slice((*slot)(unsafe.Pointer(&j.mapped[headerSize])), (size-headerSize)/slotSize)
	j.last = (*atomic.Uint64)(unsafe.Pointer(&j.mapped[16]))
	boot, err := bootID()
	if err != nil {
		return err
	}
	if !j.usable(boot, stat.Dev, stat.Ino) {
		clear(j.mapped)
		j.writeHeader(boot, stat.Dev, stat.Ino)
	}
	j.node = string(j.mapped[32 : 32+nodeNameSize])
	// The file counts as not closed from here on, also after a crash of the machine.
	copy(j.mapped[64:64+bootSize], boot)
	j.clean().Store(0)
	j.sumHeader()
	if err := unix.Msync(j.mapped[:headerSize], unix.MS_SYNC); err != nil {
		return fmt.Errorf("write it: %w", err)
	}
	return nil
}

// reserve gives a file its size. The blocks are reserved, because a store to a mapped file for which the disk has no
// room ends the process.
func reserve(file *os.File, from, to int64) error {
	err := unix.Fallocate(int(file.Fd()), 0, 0, to)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("reserve %d bytes for it: %w", to, err)
	}
	zeros := make([]byte, 64<<10)
	for at := from; at < to; at += int64(len(zeros)) {
		if _, err := file.WriteAt(zeros[:min(to-at, int64(len(zeros)))], at); err != nil {
			return fmt.Errorf("reserve %d bytes for it: %w", to, err)
		}
	}
	return nil
}

func (j *journal) clean() *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&j.mapped[24])) }

func (j *journal) headerSum() uint32 {
	return crc32.Update(crc32.Checksum(j.mapped[0:16], sumTable), sumTable, j.mapped[32:120])
}

func (j *journal) sumHeader() { binary.NativeEndian.PutUint32(j.mapped[120:], j.headerSum()) }

// usable reports whether what the file says is what its last process has stored. That is so if the machine has not
// crashed since, which is certain if it is the same boot, or if the process has closed the file. A copy of a file is
// another file, because the first may still be in use.
func (j *journal) usable(boot string, device, inode uint64) bool {
	h := j.mapped
	return string(h[:8]) == journalMagic && binary.NativeEndian.Uint32(h[8:]) == journalVersion &&
		int64(binary.NativeEndian.Uint32(h[12:])) == slotSize &&
		binary.NativeEndian.Uint32(h[120:]) == j.headerSum() &&
		binary.NativeEndian.Uint64(h[104:]) == device && binary.NativeEndian.Uint64(h[112:]) == inode &&
		isNodeName(string(h[32:32+nodeNameSize])) &&
		(strings.TrimRight(string(h[64:64+bootSize]), "\x00") == boot || j.clean().Load() == 1)
}

func (j *journal) writeHeader(boot string, device, inode uint64) {
	h := j.mapped
	copy(h, journalMagic)
	binary.NativeEndian.PutUint32(h[8:], journalVersion)
	binary.NativeEndian.PutUint32(h[12:], uint32(slotSize))
	copy(h[32:], newNodeName())
	copy(h[64:64+bootSize], boot)
	binary.NativeEndian.PutUint64(h[104:], device)
	binary.NativeEndian.PutUint64(h[112:], inode)
}

// bootID identifies the boot of the machine.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("find out which boot of the machine this is: %w", err)
	}
	boot := strings.TrimSpace(string(id))
	return boot[:min(len(boot), bootSize)], nil
}

func newNodeName() string {
	var name [nodeNameSize / 2]byte
	_, _ = rand.Read(name[:]) // it never fails
	return hex.EncodeToString(name[:])
}

func isNodeName(name string) bool {
	_, err := hex.DecodeString(name)
	return err == nil && len(name) == nodeNameSize
}

// take returns a slot for a new account, or nil if there is none.
func (j *journal) take(token string, quota events.Quota, start, end time.Time) *slot {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.free) == 0 || token == "" || len(token) > maxToken {
		return nil
	}
	s := &j.slots[j.free[len(j.free)-1]]
	j.free = j.free[:len(j.free)-1]
	j.used++
	s.granted.Store(0)
	s.returned.Store(0)
	s.held.Store(0)
	s.serial = j.last.Add(1)
	s.start, s.end = start.Unix(), end.Unix()
	s.resource, s.period, s.size = uint8(quota.Resource), uint8(quota.Period), uint8(len(token))
	s.token = [maxToken]byte{}
	copy(s.token[:], token)
	s.sum = s.checksum()
	s.inUse.Store(1)
	return s
}

// give makes the slot of an account free.
func (j *journal) give(s *slot) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s.inUse.Store(0)
	index := (uintptr(unsafe.Pointer(s)) - uintptr(unsafe.Pointer(&j.slots[0]))) / unsafe.Sizeof(*s)
	j.free = append(j.free, uint32(index))
	j.used--
}

// accounts returns the number of accounts, and for how many more there is room.
func (j *journal) accounts() (used, free int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.used, len(j.free)
}

// close notes that the file is whole, also for the time after a crash of the machine. No slot is used afterwards, and
// there is none for a new account.
func (j *journal) close() error {
	j.mu.Lock()
	j.free = nil
	j.mu.Unlock()
	if j.mapped == nil {
		return nil
	}
	err := unix.Msync(j.mapped, unix.MS_SYNC)
	if err == nil {
		j.clean().Store(1)
		err = unix.Msync(j.mapped[:headerSize], unix.MS_SYNC)
	}
	j.release()
	if err != nil {
		return fmt.Errorf("close %s: %w", j.path, err)
	}
	return nil
}

// release gives up the file.
func (j *journal) release() {
	if j.mapped != nil {
		_ = unix.Munmap(j.mapped)
		j.mapped, j.slots, j.last = nil, nil, nil
	}
	if j.lock != nil {
		_ = j.lock.Close()
		j.lock = nil
	}
}
