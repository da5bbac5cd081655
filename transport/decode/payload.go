package decode

import (
	"strings"

	"github.com/opencapture/capture/transport/memory"
)

// Payload is a decoded request. It belongs to one goroutine at a time.
type Payload struct {
	// Bytes is the text: valid UTF-8 without a byte order mark, not yet known to be JSON. It may alias Input.Body and
	// must not be written to.
	Bytes []byte

	// Steps says which encodings were undone.
	Steps Steps

	// Replaced counts the lone surrogates, which UTF-8 can't express, that became U+FFFD.
	Replaced int

	decoder *Decoder
	// limit is how many bytes the payload may have.
	limit  int64
	buffer *memory.Buffer
	// aliased is the lease for a text that is a part of the body.
	aliased memory.Lease
}

// Release gives the memory back to the pool and its bytes back to the budget. Bytes is invalid afterwards. A second
// Release does nothing.
func (p *Payload) Release() {
	if p.decoder == nil {
		return
	}
	p.decoder.buffers.Put(p.buffer)
	p.aliased.Release()
	*p = Payload{}
}

// Steps is the set of encodings that were undone to get at a text. The zero value is none of them.
type Steps uint16

// The steps, in the order in which requests usually nest them, outermost first.
const (
	StepQuery Steps = 1 << iota
	StepZstd
	StepBrotli
	StepDeflate
	StepForm
	StepLZ64
	StepBase64
	StepGzip
)

var stepNames = [...]string{"query", "zstd", "br", "deflate", "form", "lz64", "base64", "gzip"}

// Has reports whether all of the given steps are in the set.
func (s Steps) Has(steps Steps) bool { return s&steps == steps }

// String returns the names of the steps, joined by "+", as in "form+base64+gzip"; "plain" if there are none.
func (s Steps) String() string {
	if s == 0 {
		return "plain"
	}
	names := make([]string, 0, len(stepNames))
	for i, name := range stepNames {
		if s.Has(1 << i) {
			names = append(names, name)
		}
	}
	return strings.Join(names, "+")
}
