package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// These are facts about the spool's files from doc.go of modules/delivery/spool: the sizes of a segment's header and of
// a record's head, and the number with which a head begins.
const (
	segmentHeader = 20
	recordHead    = 24
	recordMagic   = 0xda7ac0de
)

// recordsIn returns the records, in a whole segment of the spool, that have any of the bytes from from up to to.
func recordsIn(segment []byte, from, to int) ([][]byte, error) {
	var found [][]byte
	at := segmentHeader
	for at < len(segment) {
		if at+recordHead > len(segment) || binary.LittleEndian.Uint32(segment[at:]) != recordMagic {
			return nil, fmt.Errorf("no record at byte %d of %d: is the spool's format another one now?", at,
				len(segment))
		}
		end := at + recordHead + int(binary.LittleEndian.Uint32(segment[at+4:]))
		if end > len(segment) {
			return nil, errors.New("the segment's last record is not whole")
		}
		if at < to && end > from {
			found = append(found, segment[at:end])
		}
		at = end
	}
	return found, nil
}
