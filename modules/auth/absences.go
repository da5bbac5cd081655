package auth

import (
	"hash/maphash"
	"sync/atomic"
)

// absences remembers tokens of no project, in a table of a fixed size. Strangers can push each other out of it, and
// nobody else. Two tokens share a place by chance only, since the hash has a secret seed; they are told apart by 64
// bits. It is safe for concurrent use, and a look takes no lock.
type absences struct {
	seed  maphash.Seed
	slots []absence
}

// absence is a token of no project until a time. hash and until are written one after the other: whoever reads in
// between takes the one token for absent as long as the other.
type absence struct {
	hash  atomic.Uint64
	until atomic.Int64
}

// absenceSlots is how many tokens the table holds, in 16 bytes each. It is a power of 2.
const absenceSlots = 1 << 16

func newAbsences() *absences {
	return &absences{seed: maphash.MakeSeed(), slots: make([]absence, absenceSlots)}
}

func (a *absences) slot(token string) (hash uint64, slot *absence) {
	hash = maphash.String(a.seed, token)
	return hash, &a.slots[hash%absenceSlots]
}

// has reports whether the token is one of no project at the time.
func (a *absences) has(token string, now int64) bool {
	hash, slot := a.slot(token)
	return slot.hash.Load() == hash && now < slot.until.Load()
}

func (a *absences) add(token string, until int64) {
	hash, slot := a.slot(token)
	slot.until.Store(0)
	slot.hash.Store(hash)
	slot.until.Store(until)
}

func (a *absences) remove(token string) {
	if hash, slot := a.slot(token); slot.hash.Load() == hash {
		slot.until.Store(0)
	}
}

func (a *absences) clear() {
	for i := range a.slots {
		a.slots[i].until.Store(0)
	}
}
