//go:build linux

package main

import "github.com/opencapture/capture/testkit/measure"

// workload says how events come: in batches, alone, or as many requests of each.
type workload string

const (
	mixed   workload = "mixed"
	batches workload = "batches"
	singles workload = "singles"
)

// size is how many events a request has on average.
func (w workload) size() int {
	switch w {
	case batches:
		return measure.BatchSize
	case singles:
		return 1
	default:
		return (measure.BatchSize + 1) / 2
	}
}

// load is requests whose events are all different.
type load struct {
	requests [][]byte
	events   int
}

// newLoad makes so many requests. Each project sends in its turn. Of a mixed load every second request is a batch.
func newLoad(kind workload, requests, projects int) (*load, error) {
	batch, err := measure.RecordedBatch()
	if err != nil {
		return nil, err
	}
	l := &load{requests: make([][]byte, requests)}
	for n := range l.requests {
		project := token(n % projects)
		// Every project sends batches and single events.
		if kind == singles || kind == mixed && (n+n/projects)%2 == 0 {
			l.requests[n] = batch.Single(project)
			l.events++
			continue
		}
		if l.requests[n], err = batch.Request(project); err != nil {
			return nil, err
		}
		l.events += measure.BatchSize
	}
	return l, nil
}
