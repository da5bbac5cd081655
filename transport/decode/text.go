package decode

import "unicode/utf8"

// Text returns the text that a part of a body means, for bodies of several parts whose compression Inflate has undone:
// without JSON strings around it, and in UTF-8. It goes by the bytes and by the charset that the content type of the
// part declares. It returns nil if there is nothing to undo, and leaves it to the caller then whether the part is
// UTF-8. The caller releases the payload. The errors are those of Decode.
func (d *Decoder) Text(part Input) (*Payload, error) {
	foreign := charsetOf(part.ContentType) != nil &&
		(!utf8.Valid(part.Body) || isISO2022(part.Body, part.ContentType))
	if !foreign && !isUTF16(part.Body) && !isQuoted(part.Body) {
		return nil, nil
	}
	p := &Payload{decoder: d, limit: d.limit(part.Config), Bytes: part.Body}
	if err := p.text(&hintSet{contentType: part.ContentType}); err != nil {
		p.Release()
		return nil, err
	}
	return p, nil
}

func (p *Payload) text(hints *hintSet) error {
	if isUTF16(p.Bytes) {
		if err := p.undoUTF16(); err != nil {
			return err
		}
	}
	for isQuoted(p.Bytes) {
		if err := p.undoQuotes(); err != nil {
			return err
		}
	}
	return p.finish(hints)
}
