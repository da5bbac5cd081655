package measure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/uuid"
	"github.com/klauspost/compress/gzip"
)

// BatchSize is how many events the recorded batch has.
const BatchSize = 50

// The recorded batch begins with recordedHead. The uuid of each event follows uuidKey.
const (
	recordedHead = `{"api_key":"phc_benchmark"`
	uuidKey      = `"uuid":"`
)

// Batch makes requests out of a recorded batch: each time with another token and other uuids. It is not safe for
// concurrent use.
type Batch struct {
	// pieces are the JSON behind the head, cut where a uuid stands. Each but the first begins with a uuid.
	pieces [][]byte
	// first is the JSON of the first event behind its brace, cut in the same way.
	first [][]byte
	zip   *gzip.Writer
}

// RecordedBatch returns the batch of testkit/testdata.
func RecordedBatch() (*Batch, error) {
	_, source, _, _ := runtime.Caller(0)
	file, err := os.Open(filepath.Join(filepath.Dir(source), "..", "testdata", "batch50.json.gz"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(unzipped)
	if err != nil {
		return nil, err
	}
	var recorded struct{ Batch []json.RawMessage }
	if err := json.Unmarshal(text, &recorded); err != nil {
		return nil, err
	}
	body, found := bytes.CutPrefix(text, []byte(recordedHead))
	pieces := bytes.Split(body, []byte(uuidKey))
	if !found || len(recorded.Batch) != BatchSize || len(pieces) != BatchSize+1 {
		return nil, fmt.Errorf("%s does not begin with %s, or has not %d events with a uuid",
			file.Name(), recordedHead, BatchSize)
	}
	zip, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return &Batch{pieces: pieces, first: bytes.Split(recorded.Batch[0][1:], []byte(uuidKey)), zip: zip}, err
}

// Request returns the bytes of a request with all events, in gzip.
func (b *Batch) Request(token string) ([]byte, error) {
	var body bytes.Buffer
	b.zip.Reset(&body)
	_, _ = fmt.Fprintf(b.zip, `{"api_key":%q`, token) // a buffer takes everything
	writeWithUUIDs(b.zip, b.pieces)
	err := b.zip.Close()
	return Post("/batch/", body.Bytes(), "Content-Encoding", "gzip", "Content-Type", "application/json"), err
}

// Single returns the bytes of a request with the first event alone.
func (b *Batch) Single(token string) []byte {
	var body bytes.Buffer
	fmt.Fprintf(&body, `{"api_key":%q,`, token)
	writeWithUUIDs(&body, b.first)
	return Post("/capture/", body.Bytes())
}

// writeWithUUIDs writes the pieces, with new uuids between them.
func writeWithUUIDs(to io.Writer, pieces [][]byte) {
	for i, piece := range pieces {
		if i > 0 {
			_, _ = io.WriteString(to, uuidKey+uuid.NewString())
			piece = piece[len(uuid.Nil.String()):]
		}
		_, _ = to.Write(piece)
	}
}
