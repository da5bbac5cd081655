package decode

import (
	"bufio"
	"bytes"
	"mime"
	"net/textproto"

	"github.com/opencapture/capture/modules/events"
)

const (
	// maxParts is how many parts a body may have. Two are of use, and an answer should be able to name a third.
	maxParts = 10
	// maxPartHeader is the largest header of a part, in bytes.
	maxPartHeader = 4 << 10
	// maxBoundary is the longest boundary, in characters (RFC 2046, section 5.1.1).
	maxBoundary = 70
)

var (
	errNotMultipart = events.Errorf(events.Invalid,
		"failed to decode request: Content-Type must be multipart/form-data")
	errBoundary = events.Errorf(events.Invalid,
		"failed to decode request: Content-Type must name the boundary of the parts, of 1 to %d characters",
		maxBoundary)
	errNoParts = events.Errorf(events.Invalid,
		"failed to decode request: the boundary that Content-Type names does not begin the body")
	errNoEnd = events.Errorf(events.Invalid,
		"failed to decode request: the multipart body ends before its closing boundary")
	errManyParts = events.Errorf(events.Invalid,
		"failed to decode request: the body has more than %d parts", maxParts)
	errPartHeader = events.Errorf(events.Invalid,
		"failed to decode request: a part's header is malformed or larger than %d bytes", maxPartHeader)
	errDisposition = events.Errorf(events.Invalid,
		"failed to decode request: a part needs a Content-Disposition of form-data with a name")
	errNoField = events.Errorf(events.Invalid,
		"failed to decode request: the multipart form has no field data")
	errTwoFields = events.Errorf(events.Invalid,
		"failed to decode request: the multipart form has more than one field data")
)

// Part is one part of a multipart form.
type Part struct {
	Name                         string
	ContentType, ContentEncoding string
	Data                         []byte
}

// FormBoundary reads the boundary of a multipart form's parts out of a request's content type.
func FormBoundary(contentType string) (string, *events.Error) {
	kind, parameters, err := mime.ParseMediaType(contentType)
	if kind != "multipart/form-data" {
		return "", errNotMultipart
	}
	boundary := parameters["boundary"]
	if err != nil || boundary == "" || len(boundary) > maxBoundary {
		return "", errBoundary
	}
	return boundary, nil
}

// SplitForm finds the parts of a body of the type multipart/form-data (RFC 2046, section 5.1). Their data are slices of
// the body.
func SplitForm(body []byte, boundary string) ([]Part, *events.Error) {
	delimiter := []byte("\r\n--" + boundary)
	if opening := delimiter[2:]; bytes.HasPrefix(body, opening) {
		body = body[len(opening):]
	} else if at := bytes.Index(body, delimiter); at >= 0 {
		body = body[at+len(delimiter):]
	} else {
		return nil, errNoParts
	}
	var parts []Part
	for {
		// body begins after a boundary. Two hyphens there end the parts. A line end there, perhaps after blanks, begins
		// another part.
		if bytes.HasPrefix(body, []byte("--")) {
			return parts, nil
		}
		rest, begins := bytes.CutPrefix(bytes.TrimLeft(body, " \t"), []byte("\r\n"))
		switch {
		case !begins:
			return nil, errNoEnd
		case len(parts) == maxParts:
			return nil, errManyParts
		}
		at := bytes.Index(rest, delimiter)
		if at < 0 {
			return nil, errNoEnd
		}
		found, err := readPart(rest[:at:at])
		if err != nil {
			return nil, err
		}
		parts = append(parts, found)
		body = rest[at+len(delimiter):]
	}
}

// readPart separates a part's header from its data.
func readPart(text []byte) (Part, *events.Error) {
	head := text[:min(len(text), maxPartHeader)]
	end := bytes.Index(head, []byte("\r\n\r\n"))
	if end < 0 {
		return Part{}, errPartHeader
	}
	header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(head[:end+4]))).ReadMIMEHeader()
	if err != nil {
		return Part{}, errPartHeader
	}
	kind, parameters, err := mime.ParseMediaType(header.Get("Content-Disposition"))
	if err != nil || kind != "form-data" || parameters["name"] == "" {
		return Part{}, errDisposition
	}
	return Part{
		Name:            parameters["name"],
		ContentType:     header.Get("Content-Type"),
		ContentEncoding: header.Get("Content-Encoding"),
		Data:            text[end+4:],
	}, nil
}

// boundaryLine returns the boundary of a multipart form that b begins with; "" if b begins otherwise. The bytes name it
// as well as Content-Type does, which proxies lose. An empty line may go before it.
func boundaryLine(b []byte) string {
	head := bytes.TrimPrefix(b[:min(len(b), 2*sniffed)], []byte("\r\n"))
	line, rest, found := bytes.Cut(head, []byte("\r\n"))
	boundary, dashed := bytes.CutPrefix(line, []byte("--"))
	const header = "Content-"
	if !found || !dashed || len(rest) < len(header) || !bytes.EqualFold(rest[:len(header)], []byte(header)) {
		return ""
	}
	if boundary = bytes.TrimRight(boundary, " \t"); len(boundary) > maxBoundary {
		return ""
	}
	return string(boundary)
}

// undoMultipart goes on with the field data of a multipart form, which may be a file. The hints of the form and of the
// field go into the set.
func (p *Payload) undoMultipart(hints *hintSet) error {
	parts, fault := SplitForm(p.Bytes, boundaryLine(p.Bytes))
	if fault != nil {
		return fault
	}
	var data *Part
	for i := range parts {
		switch part := &parts[i]; part.Name {
		case "data":
			if data != nil {
				return errTwoFields
			}
			data = part
		case "compression":
			hints.form = parseCompression(string(bytes.TrimSpace(part.Data)))
		}
	}
	switch {
	case data == nil:
		return errNoField
	case len(data.Data) == 0:
		return errMissing
	}
	if charsetOf(data.ContentType) != nil {
		hints.contentType = data.ContentType
	}
	p.Bytes = data.Data
	p.Steps |= StepMultipart
	return nil
}
