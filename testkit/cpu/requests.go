package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
)

// request returns the function that makes the requests of the load. No event is sent twice: a service stores no copies.
func (o options) request(url string) (func(context.Context) (*http.Request, error), error) {
	if o.batch == 1 {
		return singles(url), nil
	}
	return batches(url)
}

// singles makes requests with one event each.
func singles(url string) func(context.Context) (*http.Request, error) {
	const single = `{"api_key":"phc_cpu","event":"$pageview","uuid":"%s","distinct_id":"user-%d",` +
		`"properties":{%s"$lib":"web"},"timestamp":"2026-11-29T12:00:00.000Z"}`
	var n atomic.Int64
	properties := strings.Repeat(`"$current_url":"https://example.com/a/path?with=query","$browser":"Chrome",`+
		`"$os":"Linux",`, 8)[:680]
	properties = properties[:strings.LastIndexByte(properties, ',')+1]
	return func(ctx context.Context) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodPost, url+"/capture/",
			strings.NewReader(fmt.Sprintf(single, uuid.New(), n.Add(1)%1000, properties)))
	}
}

// batches makes requests with the events of the recorded batch, each time with other uuids.
func batches(url string) (func(context.Context) (*http.Request, error), error) {
	const key = `"uuid":"`
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
	pieces := bytes.Split(text, []byte(key)) // each but the first begins with a uuid
	writers := sync.Pool{New: func() any {
		writer, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level exists
		return writer
	}}
	return func(ctx context.Context) (*http.Request, error) {
		var body bytes.Buffer
		writer := writers.Get().(*gzip.Writer)
		defer writers.Put(writer)
		writer.Reset(&body)
		_, _ = writer.Write(pieces[0]) // a buffer takes everything
		for _, piece := range pieces[1:] {
			_, _ = io.WriteString(writer, key+uuid.NewString())
			_, _ = writer.Write(piece[len(uuid.Nil.String()):])
		}
		if err := writer.Close(); err != nil {
			return nil, err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/batch/", &body)
		if err == nil {
			request.Header.Set("Content-Encoding", "gzip")
			request.Header.Set("Content-Type", "application/json")
		}
		return request, err
	}, nil
}
