package local

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/store"
)

const (
	// slotBytes is what a slot of the table takes: a key and its tag.
	slotBytes = 18
	// A shard is rebuilt when more than maxLoad of its slots are taken, for a load of at most rebuiltLoad. In between
	// the probes stay short, and a digest takes 18/0.8 = 23 to 18/0.64 = 28 bytes.
	maxLoad, rebuiltLoad = 0.8, 0.64
	// shardBytes is how large a shard becomes at most: it is rebuilt under its lock, which takes a fraction of a
	// millisecond at this size.
	shardBytes = 256 << 10
	// minShards is how many shards there are at least, so that requests seldom want the same one; maxShards bounds what
	// an empty table takes.
	minShards, maxShards = 16, 1 << 14
	// workShare is the part of the memory that is for reservations, of workBytes each.
	workShare, workBytes = 1.0 / 8, 80
	// smallMap is how many reservations a shard's map may have had, and is kept when it is empty.
	smallMap = 1 << 10
	// firstSlots is the size of a shard with its first digest.
	firstSlots = 16
	// perWindow is how many generations a window has: a digest is forgotten at most a sixteenth of its window late. A
	// generation also ends when it has so large a part of the whole table, so that what goes first in a full table is
	// no more than that.
	perWindow = 16
)

// key is a digest of a token, as the table and the files have it: the digest, masked by a secret of the token. Equal
// digests of two tokens have different keys, and nobody who does not know the secret can choose digests that collide.
type key [2]uint64

func keyOf(mask key, digest *store.Digest) key {
	return key{
		binary.LittleEndian.Uint64(digest[:8]) ^ mask[0],
		binary.LittleEndian.Uint64(digest[8:]) ^ mask[1],
	}
}

// digests is the table of what is done. All digests are in one table of open addressing, so that a look at a new one
// costs one miss of the processor's cache, however many generations there are. A slot has its generation as a tag, and
// a slot of a generation that has ended is as good as free. So the end of a generation costs nothing at first; the
// slots are tidied up when their shard is rebuilt for the next time.
//
// Its methods are safe for concurrent use. A shard's lock is never taken while the generations' lock is held.
type digests struct {
	seed     key // random numbers: nobody can choose digests that meet in one part of the table
	shards   []shard
	shift    int   // of a hash, to the number of its shard
	maxSlots int   // of a shard
	largest  int64 // size of a generation
	// maxWork is how many digests are reserved at most, and inWork how many are.
	maxWork int64
	inWork  atomic.Int64
	// evicted is told of digests that were forgotten before their time, and removed of generations that have ended.
	// Both are called with the generations' lock.
	evicted func(digests int64)
	removed func(*generation)

	// ends has the time at which each generation ends, by its tag. 0: there is no such generation.
	ends [256]atomic.Int64
	// sizes has how many digests are in each generation.
	sizes [256]atomic.Int64

	mu      sync.Mutex
	begun   uint64 // the number of the last generation
	byTag   [256]*generation
	free    []uint8 // tags that no slot has
	ended   []uint8 // tags that slots may have still
	sweeper sync.Mutex
	current atomic.Pointer[generation] // that was used last
}

// generation is a set of digests that are forgotten together.
type generation struct {
	tag uint8
	// window is the window of its digests. They are done until end, on the clock of the store.
	window time.Duration
	end    int64
	// number tells which of two generations is older.
	number uint64
	// ended is set when its digests no longer count. unsaved is set while digests are missing on the disk.
	ended, unsaved atomic.Bool
}

// tag is what is known of a slot without its key: the generation in the low byte, and a part of the hash in the high
// one. 0 is a free slot: the tag of a generation is never 0. The search for a new digest reads a few tags, which are in
// one line of the processor's cache, and hardly ever a key.
type tag uint16

func tagOf(generation uint8, hash uint64) tag { return tag(generation) | tag(hash>>32&0xff)<<8 }

func (t tag) generation() uint8 { return uint8(t) }

func (t tag) fits(hash uint64) bool { return uint64(t>>8) == hash>>32&0xff }

type shard struct {
	mu   sync.Mutex
	keys []key
	tags []tag
	used int // slots that are not free
	// reserved has what is in work. peak is its greatest size since it was made: a map does not shrink.
	reserved map[key]reservation
	peak     int

	_ [24]byte // to the end of a second cache line, so that two processors do not share one
}

type reservation struct {
	owner uint64
	until int64
}

// newDigests returns a table that takes at most so many bytes.
func newDigests(bytes int64, evicted func(int64), removed func(*generation)) *digests {
	work := int64(float64(bytes) * workShare)
	bytes -= work
	count := minShards
	for count < maxShards && int64(count)*shardBytes < bytes {
		count *= 2
	}
	d := &digests{
		seed:     key{rand.Uint64(), rand.Uint64()},
		shards:   make([]shard, count),
		shift:    64 - bits.TrailingZeros(uint(count)),
		maxSlots: max(firstSlots, int(bytes/int64(count)/slotBytes)),
		maxWork:  max(firstSlots, work/workBytes),
		evicted:  evicted,
		removed:  removed,
	}
	d.largest = max(1, int64(float64(count*d.maxSlots)*maxLoad/perWindow))
	for tag := 255; tag > 0; tag-- {
		d.free = append(d.free, uint8(tag))
	}
	return d
}

// hash multiplies the halves of the key and folds the product, as wyhash does.
func (d *digests) hash(k key) uint64 {
	high, low := bits.Mul64(k[0]^d.seed[0], k[1]^d.seed[1])
	return high ^ low
}

func (d *digests) shard(hash uint64) *shard { return &d.shards[hash>>d.shift] }

// live reports whether the generation of a tag has not ended.
func (d *digests) live(tag uint8, now int64) bool { return d.ends[tag].Load() > now }

// isDone reports whether a digest is done. The caller has the shard's lock.
func (d *digests) isDone(s *shard, k key, hash uint64, now int64) bool {
	i, found := s.find(k, hash)
	return found && d.live(s.tags[i].generation(), now)
}

// find returns the slot of a key, or the free slot at which the search has ended. A shard without slots has none.
func (s *shard) find(k key, hash uint64) (slot int, found bool) {
	if len(s.tags) == 0 {
		return 0, false
	}
	i := s.home(hash)
	for s.tags[i] != 0 {
		if s.tags[i].fits(hash) && s.keys[i] == k {
			return i, true
		}
		if i++; i == len(s.tags) {
			i = 0
		}
	}
	return i, false
}

// home is the slot at which the search for a hash begins.
func (s *shard) home(hash uint64) int { return int((hash & (1<<32 - 1)) * uint64(len(s.tags)) >> 32) }

// add makes a digest one of the generation, unless it is done for longer. The caller has the shard's lock.
func (d *digests) add(s *shard, k key, hash uint64, g *generation, now int64) {
	slot, found := s.find(k, hash)
	if found {
		old := s.tags[slot].generation()
		if d.ends[old].Load() >= g.end {
			return
		}
		if d.live(old, now) {
			d.sizes[old].Add(-1)
		}
	} else {
		if float64(s.used+1) > maxLoad*float64(len(s.tags)) {
			d.rebuild(s, now)
			slot, _ = s.find(k, hash)
		}
		s.used++
	}
	s.keys[slot], s.tags[slot] = k, tagOf(g.tag, hash)
	d.sizes[g.tag].Add(1)
}

// rebuild makes a shard anew, without the digests that are no longer done, and with room for more. If the shard must
// not become larger, those generations go that would have ended first. The caller has the shard's lock.
func (d *digests) rebuild(s *shard, now int64) {
	live := d.count(s, now)
	for float64(live+1) >= maxLoad*float64(d.maxSlots)-1 && d.evict(now) {
		live = d.count(s, now)
	}
	slots := min(d.maxSlots, max(firstSlots, int(float64(live+1)/rebuiltLoad)+1))
	keys, tags := s.keys, s.tags
	s.keys, s.tags, s.used = make([]key, slots), make([]tag, slots), 0
	for i, tag := range tags {
		if tag != 0 && d.live(tag.generation(), now) {
			slot, _ := s.find(keys[i], d.hash(keys[i]))
			s.keys[slot], s.tags[slot] = keys[i], tag
			s.used++
		}
	}
}

// count returns how many digests of a shard are done.
func (d *digests) count(s *shard, now int64) (live int) {
	for _, tag := range s.tags {
		if tag != 0 && d.live(tag.generation(), now) {
			live++
		}
	}
	return live
}

// evict ends the generation that would end first. It reports whether there was one.
func (d *digests) evict(now int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	var first *generation
	for _, g := range &d.byTag {
		if g != nil && d.live(g.tag, now) && (first == nil || g.endsBefore(first)) {
			first = g
		}
	}
	if first == nil {
		return false
	}
	d.evicted(d.sizes[first.tag].Load())
	d.end(first)
	return true
}

func (g *generation) endsBefore(other *generation) bool {
	return g.end < other.end || g.end == other.end && g.number < other.number
}

// end ends a generation. The caller has the generations' lock.
func (d *digests) end(g *generation) {
	d.ends[g.tag].Store(0)
	g.ended.Store(true)
	d.byTag[g.tag] = nil
	d.ended = append(d.ended, g.tag)
	d.removed(g)
}

// generation returns the generation for digests that are done now and forgotten after the window.
func (d *digests) generation(now int64, window time.Duration) *generation {
	end := now + int64(window)
	fits := func(g *generation) bool {
		return g != nil && g.window == window && g.end >= end && g.end-end <= int64(window)/8 &&
			d.live(g.tag, now) && !d.isFull(g)
	}
	if g := d.current.Load(); fits(g) {
		return g
	}
	d.mu.Lock()
	for _, g := range &d.byTag {
		if fits(g) {
			d.mu.Unlock()
			d.current.Store(g)
			return g
		}
	}
	for len(d.free) == 0 {
		d.mu.Unlock()
		if !d.sweep(now) {
			d.evict(now)
		}
		d.mu.Lock()
	}
	g := d.begin(window, end+int64(window)/perWindow)
	d.mu.Unlock()
	d.current.Store(g)
	return g
}

// begin makes a generation. The caller has the generations' lock, and there is a free tag.
func (d *digests) begin(window time.Duration, end int64) *generation {
	d.begun++
	g := &generation{tag: d.free[len(d.free)-1], window: window, end: end, number: d.begun}
	d.free = d.free[:len(d.free)-1]
	d.byTag[g.tag] = g
	d.sizes[g.tag].Store(0)
	d.ends[g.tag].Store(end)
	return g
}

// expire ends the generations whose time is over. It reports how many tags are waiting for a sweep.
func (d *digests) expire(now int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, g := range &d.byTag {
		if g != nil && g.end <= now {
			d.end(g)
		}
	}
	return len(d.ended)
}

// sweep takes the digests of generations that have ended, and reservations that have, out of the table. It reports
// whether that has made tags free.
func (d *digests) sweep(now int64) bool {
	d.sweeper.Lock()
	defer d.sweeper.Unlock()
	d.expire(now)
	d.mu.Lock()
	ended := d.ended
	d.ended = nil
	d.mu.Unlock()
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.Lock()
		if len(ended) > 0 && d.count(s, now) < s.used {
			d.rebuild(s, now)
		}
		d.releaseEnded(s, now)
		s.mu.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = append(d.free, ended...)
	return len(d.free) > 0
}

// releaseEnded removes the reservations whose lease is over. The caller has the shard's lock.
func (d *digests) releaseEnded(s *shard, now int64) {
	for k, r := range s.reserved {
		if r.until <= now {
			delete(s.reserved, k)
			d.inWork.Add(-1)
		}
	}
	if len(s.reserved) == 0 && s.peak > smallMap {
		s.reserved, s.peak = nil, 0
	}
}

// generations returns the generations that have not ended.
func (d *digests) generations() (all []*generation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, g := range &d.byTag {
		if g != nil {
			all = append(all, g)
		}
	}
	return all
}

// collect appends the digests of a shard that have a tag.
func (d *digests) collect(keys []key, s *shard, tag uint8) []key {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, of := range s.tags {
		if of.generation() == tag {
			keys = append(keys, s.keys[i])
		}
	}
	return keys
}

// expect makes room for so many digests, which are about to be loaded.
func (d *digests) expect(total int64) {
	slots := min(d.maxSlots, int(float64(total)/float64(len(d.shards))/rebuiltLoad))
	if slots < firstSlots {
		return
	}
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.Lock()
		if s.used == 0 {
			s.keys, s.tags = make([]key, slots), make([]tag, slots)
		}
		s.mu.Unlock()
	}
}

// loaded returns a generation for the digests of a file, which end at a time or up to slack later.
func (d *digests) loaded(window time.Duration, end, slack int64) *generation {
	d.mu.Lock()
	defer d.mu.Unlock()
	var later, last *generation
	for _, g := range &d.byTag {
		switch {
		case g == nil:
			continue
		case g.window == window && g.end >= end && g.end-end <= slack && !d.isFull(g):
			return g
		case g.end >= end && (later == nil || g.end < later.end):
			later = g
		}
		if last == nil || g.end > last.end {
			last = g
		}
	}
	switch {
	case len(d.free) > perWindow:
		return d.begin(window, end+slack)
	case later != nil:
		return later
	default:
		return last
	}
}

// isFull reports whether a generation is as large as one becomes.
func (d *digests) isFull(g *generation) bool { return d.sizes[g.tag].Load() >= d.largest }

// load adds digests that were done before.
func (d *digests) load(keys []key, g *generation, now int64) {
	for _, k := range keys {
		hash := d.hash(k)
		s := d.shard(hash)
		s.mu.Lock()
		d.add(s, k, hash, g, now)
		s.mu.Unlock()
	}
}

// size returns how many digests are done.
func (d *digests) size() (size int64) {
	for _, g := range d.generations() {
		size += d.sizes[g.tag].Load()
	}
	return size
}
