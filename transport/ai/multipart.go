package ai

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
)

// part is one part of a body.
type part struct {
	name                         string
	contentType, contentEncoding string
	data                         []byte
}

// boundaryOf reads the boundary out of a request's content type.
func boundaryOf(contentType string) (string, *events.Error) {
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

// split finds the parts of a body (RFC 2046, section 5.1). Their data are slices of the body.
func split(body []byte, boundary string) ([]part, *events.Error) {
	delimiter := []byte("\r\n--" + boundary)
	if opening := delimiter[2:]; bytes.HasPrefix(body, opening) {
		body = body[len(opening):]
	} else if at := bytes.Index(body, delimiter); at >= 0 {
		body = body[at+len(delimiter):]
	} else {
		return nil, errNoParts
	}
	var parts []part
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
func readPart(text []byte) (part, *events.Error) {
	head := text[:min(len(text), maxPartHeader)]
	end := bytes.Index(head, []byte("\r\n\r\n"))
	if end < 0 {
		return part{}, errPartHeader
	}
	header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(head[:end+4]))).ReadMIMEHeader()
	if err != nil {
		return part{}, errPartHeader
	}
	kind, parameters, err := mime.ParseMediaType(header.Get("Content-Disposition"))
	if err != nil || kind != "form-data" || parameters["name"] == "" {
		return part{}, errDisposition
	}
	return part{
		name:            parameters["name"],
		contentType:     header.Get("Content-Type"),
		contentEncoding: header.Get("Content-Encoding"),
		data:            text[end+4:],
	}, nil
}
