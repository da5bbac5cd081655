package decode

import "errors"

type buffer struct{}
type buffers struct{ budget *Budget }

func (*buffers) put(*buffer) {}

// Input is what one request carries that matters for decoding. Nothing of it is kept after Decode returns, except that
// Payload.Bytes may alias Body.
type Input struct {
	Body            []byte // as read from the wire
	QueryData       string // the query's data parameter, percent-decoded by net/url rules ('+' has become a space); empty if absent
	QueryHint       string // the query's compression parameter
	ContentType     string
	ContentEncoding string
}

// Decoder decodes requests. It is safe for concurrent use.
type Decoder struct {
	limit   int64
	buffers buffers
}

// New returns a decoder.
func New(maxDecoded int64, budget *Budget) *Decoder {
	return &Decoder{limit: maxDecoded, buffers: buffers{budget: budget}}
}

// Decode decodes.
func (d *Decoder) Decode(in Input) (*Payload, error) {
	return nil, errors.New("being written")
}
