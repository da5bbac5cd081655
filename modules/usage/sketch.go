package usage

import "math/bits"

// sketch estimates how often a hash has come up lately: a count-min sketch, whose counts are halved from time to time.
// An estimate is never too low for what has come up since then, and rarely too high.
type sketch struct {
	rows  [4][]uint16
	mask  uint64
	added int
}

const (
	// cellsOfToken is how wide the sketch is for each token that may have a row.
	cellsOfToken = 32
	// cellsOfHash says when the counts are halved: once a row of the sketch has less than so many cells for each hash
	// that has come up. So few hashes share theirs with others.
	cellsOfHash = 4
)

func newSketch(tokens int) sketch {
	width := 1 << bits.Len(uint(tokens*cellsOfToken-1))
	s := sketch{mask: uint64(width - 1)}
	for i := range s.rows {
		s.rows[i] = make([]uint16, width)
	}
	return s
}

// add notes that the hash has come up, and returns how often it has.
func (s *sketch) add(hash uint64) (estimate uint32) {
	if s.added++; s.added > len(s.rows[0])/cellsOfHash {
		s.added = 0
		for i := range s.rows {
			for j := range s.rows[i] {
				s.rows[i][j] /= 2
			}
		}
	}
	lowest := ^uint16(0)
	for i := range s.rows {
		cell := &s.rows[i][hash&s.mask]
		if *cell < ^uint16(0) {
			*cell++
		}
		lowest = min(lowest, *cell)
		hash = bits.RotateLeft64(hash*0x9E3779B97F4A7C15, 23)
	}
	return uint32(lowest)
}
