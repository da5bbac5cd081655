package decode

import (
	"bytes"
	"sync"
	"unicode/utf8"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
)

// Input is what decoding needs of a request. The decoder keeps none of it after Decode returns, but Payload.Bytes may
// alias Body.
type Input struct {
	// Body is the body as read from the wire.
	Body []byte
	// QueryData is the query's data parameter, percent-decoded by the rules of net/url ('+' has become a space); empty
	// if absent.
	QueryData string
	// QueryHint is the query's compression parameter; empty if absent.
	QueryHint string
	// ContentType is the header of that name. Inflate does not look at it.
	ContentType string
	// ContentEncoding is the header of that name.
	ContentEncoding string
	// Config is the configuration that judges the request; nil: the one in force.
	Config *configs.View
}

// Decoder decodes requests. It is safe for concurrent use.
type Decoder struct {
	limit   func(*configs.View) int64
	budget  *memory.Budget
	buffers *memory.Buffers

	gzips, zlibs, flates, brotlis, zstds, lz64s sync.Pool
}

// New returns a Decoder. limit returns how many bytes a payload may have, by the configuration that judges the request.
// The decoder reserves its payloads, and its other large memory, from the budget; a nil budget is unbounded.
func New(limit func(*configs.View) int64, budget *memory.Budget) *Decoder {
	return &Decoder{
		limit:   limit,
		budget:  budget,
		buffers: memory.NewBuffers(budget),
		gzips:   sync.Pool{New: func() any { return new(gzipStream) }},
		zlibs:   sync.Pool{New: func() any { return new(zlibStream) }},
		flates:  sync.Pool{New: func() any { return new(flateStream) }},
		brotlis: sync.Pool{New: func() any { return new(brotliStream) }},
		zstds:   sync.Pool{New: newZstd},
		lz64s:   sync.Pool{New: func() any { return new(lz64) }},
	}
}

// Limit returns how many bytes a payload may have.
func (d *Decoder) Limit(config *configs.View) int64 { return d.limit(config) }

var (
	errMissing       = events.Errorf(events.Invalid, "request missing data payload")
	errManyEncodings = events.Errorf(events.Invalid,
		"failed to decode request: Content-Encoding names more than %d encodings", maxLayers)
	errManyLayers = events.Errorf(events.Invalid,
		"failed to decode request: the request is compressed more than %d times", maxLayers)
	errNoForm   = events.Errorf(events.Invalid, "failed to decode request: expected form data in POST request payload")
	errGzip     = events.Errorf(events.Invalid, "failed to decode request: invalid GZIP data")
	errGzipText = events.Errorf(events.Invalid, "failed to decode request: invalid gzip data")
	errZstd     = events.Errorf(events.Invalid, "failed to decode request: invalid ZSTD data")
	errBrotli   = events.Errorf(events.Invalid, "failed to decode request: invalid BROTLI data")
	errDeflate  = events.Errorf(events.Invalid, "failed to decode request: invalid DEFLATE data")
	errBase64   = events.Errorf(events.Invalid, "failed to decode request: invalid base64 data")
	errText     = events.Errorf(events.Invalid, "failed to decode request: invalid UTF8 in request payload")
)

// Decode returns the text that a request means. The data parameter of the query goes before the body. A text that is
// not UTF-8 is an error, unless it begins like JSON: see Payload.Malformed. The caller releases the payload.
//
// Its error is an *events.Error: Invalid if the request can't be decoded, TooLarge if it would be over the limit,
// Unavailable if the budget is spent.
func (d *Decoder) Decode(in Input) (*Payload, error) {
	p := &Payload{decoder: d, limit: d.limit(in.Config)}
	if err := p.decode(&in); err != nil {
		p.Release()
		return nil, err
	}
	return p, nil
}

func (p *Payload) decode(in *Input) error {
	hints := hintSet{
		header: parseContentEncoding(in.ContentEncoding), query: parseCompression(in.QueryHint),
		contentType: in.ContentType,
	}
	switch {
	case in.QueryData != "":
		data, err := p.decoder.buffers.Get(int64(len(in.QueryData)))
		if err != nil {
			return err
		}
		data.Bytes = append(data.Bytes, in.QueryData...)
		p.become(data, StepQuery)
	case len(in.Body) == 0:
		return errMissing
	default:
		p.Bytes = in.Body
		if err := p.undoContentEncoding(&hints.header); err != nil {
			return err
		}
	}
	if err := p.unwrap(&hints, in.ContentType == "application/x-www-form-urlencoded"); err != nil {
		return err
	}
	return p.finish(&hints)
}

// Inflate undoes the compression of a body, and nothing else, for bodies that are not a text or not only one. It goes
// by Content-Encoding and by the bytes, and looks at neither the query nor the content type. The caller releases the
// payload, whose Bytes need not be valid UTF-8. The errors are those of Decode.
func (d *Decoder) Inflate(in Input) (*Payload, error) {
	p := &Payload{decoder: d, limit: d.limit(in.Config), Bytes: in.Body}
	if err := p.inflate(in.ContentEncoding); err != nil {
		p.Release()
		return nil, err
	}
	return p, nil
}

func (p *Payload) inflate(contentEncoding string) error {
	if len(p.Bytes) == 0 {
		return errMissing
	}
	list := parseContentEncoding(contentEncoding)
	if err := p.undoContentEncoding(&list); err != nil {
		return err
	}
	for {
		switch found, err := p.undoByBytes(); {
		case err != nil:
			return err
		case !found:
			return p.account()
		}
	}
}

// maxLayers is how many compressions of a request are undone, one in the other. Each of them keeps to the limit and the
// budget.
const maxLayers = 4

// undoContentEncoding undoes what the header names, the last first. Brotli and bare deflate are undone where the header
// has them, because their bytes do not show them. It leaves a text as it is, whatever the header says.
func (p *Payload) undoContentEncoding(list *encodings) error {
	if list.tooMany && !isText(p.Bytes) {
		return errManyEncodings
	}
	for i := list.count - 1; i >= 0 && !isText(p.Bytes); i-- {
		if err := p.undoNamed(list.names[i]); err != nil {
			return err
		}
	}
	return nil
}

// undoNamed undoes the compression that the bytes show or, if they show none, the one that is named.
func (p *Payload) undoNamed(name hint) error {
	if name == hintBrotli || name == hintDeflate {
		switch text, lost := wasText(p.Bytes); {
		case lost:
			return errMangled
		case text:
			if err := p.undoPackedText(); err != nil {
				return err
			}
		}
	}
	if name == hintBrotli && isPlainZlib(p.Bytes) {
		return p.undo(StepBrotli) // which may begin like zlib, whose header has two bytes only
	}
	if found, err := p.undoByBytes(); found {
		return err
	}
	switch name {
	case hintZstd:
		return p.undo(StepZstd)
	case hintBrotli:
		return p.undo(StepBrotli)
	case hintDeflate:
		return p.undo(StepDeflate)
	default:
		return nil
	}
}

// undoByBytes undoes a compression that the bytes show, if they show one.
func (p *Payload) undoByBytes() (found bool, err error) {
	if isPackedText(p.Bytes) {
		if err := p.undoPackedText(); err != nil {
			return true, err
		}
	}
	switch {
	case isGzip(p.Bytes):
		return true, p.undo(StepGzip)
	case isZstd(p.Bytes):
		return true, p.undo(StepZstd)
	case isMangled(p.Bytes):
		return true, errMangled
	case isPlainZlib(p.Bytes):
		return true, p.undo(StepDeflate)
	default:
		return false, nil
	}
}

// maxBase64 is how many times base64 is undone: once as the form of the request (spec 2.3, step 2) and once as the form
// of the text (spec 2.4).
const maxBase64 = 2

// unwrap looks at the bytes, undoes the encoding that they show, and looks again, until they are JSON or show nothing
// that can be undone. So the order of the hints (spec 2.3, step 4) does not matter: lz-string is the only encoding that
// the bytes do not show, and unwrap tries it where nothing else fits.
func (p *Payload) unwrap(hints *hintSet, form bool) error {
	base64s := 0
	for {
		found, err := p.undoByBytes()
		switch {
		case found:
		case isUTF16(p.Bytes) && !p.Steps.Has(StepCharset):
			err = p.undoUTF16()
		case isJSON(p.Bytes):
			return nil
		case isForm(p.Bytes) && !p.Steps.Has(StepForm):
			hints.form, err = p.undoForm()
		case !p.Steps.Has(StepMultipart) && boundaryLine(p.Bytes) != "":
			err = p.undoMultipart(hints)
		case isQuoted(p.Bytes):
			err = p.undoQuotes()
		case base64s < maxBase64 && isBase64Of(p.Bytes, base64s+1 < maxBase64):
			base64s++
			err = p.undoBase64()
		case hints.has(hintLZ64) && !p.Steps.Has(StepLZ64):
			err = p.undo(StepLZ64)
		case form && p.Steps == 0:
			return errNoForm
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// undoForm goes on with the form's data and returns the compression that the form names. A form without data stays as
// it is, and is not looked at again.
func (p *Payload) undoForm() (hint, error) {
	data, compression, err := scanForm(p.Bytes)
	if err != nil {
		return hintNone, err
	}
	named := parseCompression(string(compression))
	switch {
	case data == nil:
		p.Steps |= StepForm
		return named, nil
	case len(data) == 0:
		return named, errMissing
	case !isEscaped(data):
		p.Bytes = data
		p.Steps |= StepForm
		return named, nil
	}
	text, err := p.decoder.buffers.Get(int64(len(data)))
	if err != nil {
		return named, err
	}
	if text.Bytes, err = unescape(text.Bytes, data); err != nil {
		p.decoder.buffers.Put(text)
		return named, err
	}
	p.become(text, StepForm)
	return named, nil
}

// undoBase64 decodes base64. It works in place, unless the bytes are the client's.
func (p *Payload) undoBase64() error {
	if p.buffer != nil {
		n, ok := decodeBase64(p.Bytes, p.Bytes, false)
		if !ok {
			return errBase64
		}
		p.Bytes = p.Bytes[:n]
		p.Steps |= StepBase64
		return nil
	}
	size := len(p.Bytes)/4*3 + 3
	out, err := p.decoder.buffers.Get(int64(size))
	if err != nil {
		return err
	}
	n, ok := decodeBase64(out.Bytes[:size], p.Bytes, false)
	if !ok {
		p.decoder.buffers.Put(out)
		return errBase64
	}
	out.Bytes = out.Bytes[:n]
	p.become(out, StepBase64)
	return nil
}

// room returns how much the next step may yield. The input of the step counts, too, if an earlier step has decompressed
// it: the request as a whole holds no more than the limit. Its whole buffer counts, less the room that a pooled buffer
// may have to spare.
func (p *Payload) room() room {
	room := room{limit: p.limit}
	if p.Steps&stepsInflating != 0 {
		room.held = int64(max(len(p.Bytes), cap(p.buffer.Bytes)-memory.MaxPooled))
	}
	return room
}

// undo undoes a compression.
func (p *Payload) undo(step Steps) error {
	if p.layers++; p.layers > maxLayers {
		return errManyLayers
	}
	d, room := p.decoder, p.room()
	var out *memory.Buffer
	var err error
	switch step {
	case StepGzip:
		out, err = d.inflateGzip(p.Bytes, room)
	case StepZstd:
		out, err = d.inflateZstd(p.Bytes, room)
	case StepBrotli:
		out, err = d.inflateBrotli(p.Bytes, room)
	case StepDeflate:
		out, err = d.inflateDeflate(p.Bytes, room)
	case StepLZ64:
		out, p.Replaced, err = d.inflateLZ64(p.Bytes, room)
	}
	if err != nil {
		return err
	}
	p.become(out, step)
	return nil
}

// become makes the output of a step the payload's bytes.
func (p *Payload) become(out *memory.Buffer, step Steps) {
	p.decoder.buffers.Put(p.buffer)
	p.buffer, p.Bytes = out, out.Bytes
	p.Steps |= step
}

// join makes characters of pairs of surrogates that were written in three bytes each, and replaces lone surrogates.
// posthog-js 1.0 writes every character beyond the Basic Multilingual Plane so. The rest of the text stays as it is.
func (p *Payload) join() error {
	if !hasSurrogate(p.Bytes) {
		return nil
	}
	if p.buffer == nil {
		out, err := p.decoder.buffers.Get(int64(len(p.Bytes)))
		if err != nil {
			return err
		}
		out.Bytes = append(out.Bytes, p.Bytes...)
		p.become(out, 0)
	}
	text, replaced := joinSurrogates(p.Bytes)
	p.Bytes = text
	p.Replaced += replaced
	return nil
}

// finish checks the text and accounts for it. A text that is valid UTF-8 is UTF-8, whatever charset the request
// declares: JSON has no other, many clients declare their platform's charset, and a text in any of the charsets of a
// byte or more a character is hardly ever UTF-8 by chance.
func (p *Payload) finish(hints *hintSet) error {
	if err := p.account(); err != nil {
		return err
	}
	// JSON parsers such as encoding/json refuse a byte order mark, though it tells nothing new about the text.
	p.Bytes = bytes.TrimPrefix(p.Bytes, byteOrderMark)
	if !utf8.Valid(p.Bytes) || isISO2022(p.Bytes, hints.contentType) {
		undo := p.join
		if charset := charsetOf(hints.contentType); charset != nil {
			undo = func() error { return p.undoCharset(charset) }
		}
		if err := undo(); err != nil {
			return err
		}
	}
	if utf8.Valid(p.Bytes) {
		return nil
	}
	fault := errText
	switch {
	case p.Steps.Has(StepGzip):
		fault = errGzipText
	case hints.has(hintGzip):
		fault = errGzip
	}
	if !isJSON(p.Bytes) {
		return fault
	}
	p.Malformed = fault
	return nil
}

// account checks the size of the payload. Where the payload is a part of the body, account also reserves the size.
func (p *Payload) account() error {
	size := int64(len(p.Bytes))
	if size > p.limit {
		return events.Errorf(events.TooLarge,
			"maximum event size exceeded: Uncompressed payload size limit %d exceeded: %d", p.limit, size)
	}
	if p.buffer == nil {
		p.aliased = p.decoder.budget.Lease()
		if !p.aliased.Reserve(size) {
			return p.aliased.Refusal(size)
		}
	}
	return nil
}
