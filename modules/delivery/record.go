package delivery

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/opencapture/capture/modules/produce"
)

// A record of the spool is one message: a byte for the version of this format, then the time (milliseconds since 1970),
// the topic, the key (its length plus one, or 0 for none), the number of headers, each header's key and value, and the
// rest is the value. Numbers are varints; texts have their length before them.
const recordVersion = 1

// appendRecord appends the message as a record with the time "at".
func appendRecord(dst []byte, m *produce.Message, at time.Time) []byte {
	dst = append(dst, recordVersion)
	dst = binary.AppendVarint(dst, at.UnixMilli())
	dst = binary.AppendUvarint(dst, uint64(len(m.Topic)))
	dst = append(dst, m.Topic...)
	if m.Key == nil {
		dst = append(dst, 0)
	} else {
		dst = binary.AppendUvarint(dst, uint64(len(m.Key))+1)
		dst = append(dst, m.Key...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(m.Headers)))
	for i := range m.Headers {
		dst = appendText(dst, m.Headers[i].Key)
		dst = appendText(dst, m.Headers[i].Value)
	}
	return append(dst, m.Value...)
}

func appendText(dst, text []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
}

var errRecord = errors.New("the record is not one of this version of the service: start the one that has written it")

// readRecord fills m from a record. m refers to the record's bytes afterwards.
func readRecord(record []byte, m *produce.Message) error {
	r := recordReader{rest: record, ok: len(record) > 0 && record[0] == recordVersion}
	if !r.ok {
		return errRecord
	}
	r.rest = r.rest[1:]
	m.Time = time.UnixMilli(r.varint())
	if topic := r.text(); string(topic) != m.Topic { // a message that is used again mostly has the topic already
		m.Topic = string(topic)
	}
	m.Key = nil
	if n := r.uvarint(); n > 0 {
		m.Key = r.bytes(n - 1)
	}
	headers := r.uvarint()
	m.Headers = m.Headers[:0]
	for range headers {
		m.Headers = append(m.Headers, produce.Header{Key: r.text(), Value: r.text()})
		if !r.ok {
			break
		}
	}
	m.Value = r.rest
	if !r.ok {
		return errRecord
	}
	return nil
}

// recordReader reads a record from front to back. Once a read has failed, all further reads return nothing.
type recordReader struct {
	rest []byte
	ok   bool
}

func (r *recordReader) varint() int64 {
	value, n := binary.Varint(r.rest)
	r.skip(n)
	return value
}

func (r *recordReader) uvarint() uint64 {
	value, n := binary.Uvarint(r.rest)
	r.skip(n)
	if !r.ok {
		return 0
	}
	return value
}

func (r *recordReader) skip(n int) {
	if n <= 0 {
		r.ok, r.rest = false, nil
		return
	}
	r.rest = r.rest[n:]
}

func (r *recordReader) text() []byte { return r.bytes(r.uvarint()) }

func (r *recordReader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.ok, r.rest = false, nil
		return nil
	}
	bytes := r.rest[:n:n]
	r.rest = r.rest[n:]
	return bytes
}
