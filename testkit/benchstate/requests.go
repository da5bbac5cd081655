//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/klauspost/compress/gzip"
)

// workload says how events come: in batches, alone, or as many requests of each.
type workload string

const (
	mixed   workload = "mixed"
	batches workload = "batches of 50"
	singles workload = "single events"
)

// batchSize is how many events a batch has.
const batchSize = 50

// size is how many events a request has on average.
func (w workload) size() int {
	switch w {
	case batches:
		return batchSize
	case singles:
		return 1
	default:
		return (batchSize + 1) / 2
	}
}

// requests makes requests whose events are all different. Each project sends in its turn.
type requests struct {
	url      string
	kind     workload
	projects int64
	events   atomic.Int64
	sent     atomic.Int64
	// pieces are the JSON of a batch, cut where an event's uuid stands.
	pieces [][]byte
	single []byte
	zip    sync.Pool
}

// recordedHead and uuidKey stand in the recorded batch.
const (
	recordedHead = `{"api_key":"phc_benchmark"`
	uuidKey      = `"uuid":"`
)

func newRequests(url string, kind workload, projects int) (*requests, error) {
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
	body, err := io.ReadAll(unzipped)
	if err != nil {
		return nil, err
	}
	body, found := bytes.CutPrefix(body, []byte(recordedHead))
	if !found {
		return nil, fmt.Errorf("the batch does not begin with %s", recordedHead)
	}
	var batch struct{ Batch []json.RawMessage }
	if err := json.Unmarshal(append([]byte{'{'}, body[1:]...), &batch); err != nil {
		return nil, err
	}
	r := &requests{url: url, kind: kind, projects: int64(projects), single: batch.Batch[0]}
	r.pieces = bytes.Split(body, []byte(uuidKey))
	if len(r.pieces) != batchSize+1 {
		return nil, fmt.Errorf("the batch has %d events with a uuid", len(r.pieces)-1)
	}
	r.zip.New = func() any {
		writer, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
		if err != nil {
			panic(err) // only for a level that there is not
		}
		return writer
	}
	return r, nil
}

// next makes a request. Of a mixed load every second one is a batch.
func (r *requests) next(ctx context.Context) (*http.Request, error) {
	n := r.sent.Add(1)
	// Every project sends batches and single events.
	project := n % r.projects
	alone := r.kind == singles || r.kind == mixed && (n+n/r.projects)%2 == 0
	head := []byte(`{"api_key":"` + token(int(project)) + `"`)
	if alone {
		r.events.Add(1)
		head = append(append(head, ','), withUUID(r.single[1:])...)
		return http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/capture/", bytes.NewReader(head))
	}
	r.events.Add(batchSize)
	var body bytes.Buffer
	zip := r.zip.Get().(*gzip.Writer)
	defer r.zip.Put(zip)
	zip.Reset(&body)
	_, _ = zip.Write(head)
	for i, piece := range r.pieces {
		if i > 0 {
			_, _ = zip.Write([]byte(uuidKey + uuid.NewString()))
			piece = piece[len(uuid.Nil.String()):]
		}
		_, _ = zip.Write(piece)
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/batch/", &body)
	if err == nil {
		request.Header.Set("Content-Encoding", "gzip")
		request.Header.Set("Content-Type", "application/json")
	}
	return request, err
}

// withUUID returns an event with another uuid.
func withUUID(event []byte) []byte {
	before, after, _ := bytes.Cut(event, []byte(uuidKey))
	id := uuid.NewString()
	return append(append(append(bytes.Clone(before), uuidKey...), id...), after[len(id):]...)
}
