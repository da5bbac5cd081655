package main

import (
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/opencapture/capture/testkit/measure"
)

// requests makes requests of the load. No event is sent twice: a service stores no copies.
func (o options) requests(n int) ([][]byte, error) {
	requests := make([][]byte, n)
	if o.batch == 1 {
		for i := range requests {
			requests[i] = single(i)
		}
		return requests, nil
	}
	batch, err := measure.RecordedBatch()
	if err != nil {
		return nil, err
	}
	for i := range requests {
		if requests[i], err = batch.Request("phc_cpu"); err != nil {
			return nil, err
		}
	}
	return requests, nil
}

// properties are those of a single event.
var properties = func() string {
	text := strings.Repeat(`"$current_url":"https://example.com/a/path?with=query","$browser":"Chrome",`+
		`"$os":"Linux",`, 8)[:680]
	return text[:strings.LastIndexByte(text, ',')+1]
}()

// single makes a request with one event.
func single(n int) []byte {
	const event = `{"api_key":"phc_cpu","event":"$pageview","uuid":"%s","distinct_id":"user-%d",` +
		`"properties":{%s"$lib":"web"},"timestamp":"2026-11-29T12:00:00.000Z"}`
	return measure.Post("/capture/", fmt.Appendf(nil, event, uuid.New(), n%1000, properties))
}
