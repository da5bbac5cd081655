package spool

import (
	"slices"
	"sort"
)

// span is the numbers from and beyond, to excluded.
type span struct{ from, to uint64 }

// ranges are sets of numbers as spans in ascending order that do not touch: their size is that of the gaps between them.
type ranges []span

// add adds a span and returns how many of its numbers are new.
func (r *ranges) add(s span) (added uint64) {
	if s.from >= s.to {
		return 0
	}
	added = s.to - s.from
	// Of the spans that s touches, the first and the one behind the last.
	i := sort.Search(len(*r), func(i int) bool { return (*r)[i].to >= s.from })
	j := i
	for ; j < len(*r) && (*r)[j].from <= s.to; j++ {
		old := (*r)[j]
		if from, to := max(old.from, s.from), min(old.to, s.to); from < to {
			added -= to - from
		}
	}
	if i < j {
		s.from, s.to = min(s.from, (*r)[i].from), max(s.to, (*r)[j-1].to)
	}
	*r = slices.Replace(*r, i, j, s)
	return added
}

// passed returns where cursor comes to when it passes what it meets, and forgets that.
func (r *ranges) passed(cursor uint64) uint64 {
	n := 0
	for ; n < len(*r) && (*r)[n].from <= cursor; n++ {
		cursor = max(cursor, (*r)[n].to)
	}
	*r = slices.Delete(*r, 0, n)
	return cursor
}

func (r ranges) contains(seq uint64) bool {
	i := sort.Search(len(r), func(i int) bool { return r[i].to > seq })
	return i < len(r) && r[i].from <= seq
}
