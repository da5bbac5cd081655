package decode

import (
	"strings"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
)

// Payload is a decoded request. It belongs to one goroutine at a time.
type Payload struct {
	// Bytes is the text: valid UTF-8 without a byte order mark, not yet known to be JSON. It may alias Input.Body and
	// must not be written to.
	Bytes []byte

	// Malformed is set if Bytes begins like JSON, but is not UTF-8 as a whole. A single bad byte must not cost a whole
	// batch, so the caller may mend the text. Malformed is the answer if the mended text is not JSON.
	Malformed *events.Error

	// Steps says which encodings were undone.
	Steps Steps
	// layers and quoted count the compressions and the JSON strings that were undone.
	layers, quoted uint8

	// Replaced counts what became U+FFFD: lone surrogates, which UTF-8 can't express, and what means nothing in the
	// charset that the request declares.
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
	StepMultipart
	StepForm
	StepQuotes
	StepLZ64
	StepBase64
	StepLatin1
	StepGzip
	StepCharset
)

var stepNames = [...]string{
	"query", "zstd", "br", "deflate", "multipart", "form", "quotes", "lz64", "base64", "latin1", "gzip", "charset",
}

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
