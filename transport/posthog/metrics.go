package posthog

import (
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
)

// Metrics are the counters and timers of both generations of the protocol.
type Metrics struct {
	// Decode, Scan and Process time the steps of a request.
	Decode, Scan, Process tally.Timer

	numbers, surrogates tally.Counter
}

// NewMetrics resolves the metrics of a handler. Handlers of one scope share them.
func NewMetrics(scope tally.Scope) Metrics {
	stage := func(name string) tally.Timer {
		return scope.Tagged(map[string]string{"stage": name}).Timer("stage_seconds")
	}
	repaired := func(kind string) tally.Counter {
		return scope.Tagged(map[string]string{"kind": kind}).Counter("json_repaired_total")
	}
	return Metrics{
		Decode: stage("decode"), Scan: stage("scan"), Process: stage("process"),
		numbers: repaired("nan"), surrogates: repaired("lone_surrogate"),
	}
}

// Mend has the text scanned. If the scan meets a fault that Repair can mend, Mend repairs the text and has the copy
// scanned. The copy counts against the lease. Mend notes in the batch whether it or the decoder has mended anything,
// and sets the payload's Replaced back, which it has counted.
func (m *Metrics) Mend(
	payload *decode.Payload, scan func([]byte) *jsonscan.SyntaxError, scanner *jsonscan.Scanner, batch *events.Batch,
	lease *memory.Lease,
) (*jsonscan.SyntaxError, *events.Error) {
	m.surrogates.Inc(int64(payload.Replaced))
	batch.Repaired = batch.Repaired || payload.Replaced > 0
	payload.Replaced = 0
	data := payload.Bytes
	fault := scan(data)
	if fault == nil || !scanner.Repairable {
		return fault, nil
	}
	// A repair adds a third at most: NaN becomes null.
	if !lease.Reserve(int64(len(data)) * 4 / 3) {
		return nil, memory.ErrSpent
	}
	mended, done := jsonscan.Repair(data)
	if fault = scan(mended); fault == nil {
		m.numbers.Inc(int64(done.Numbers))
		m.surrogates.Inc(int64(done.Surrogates))
		batch.Repaired = true
	}
	return fault, nil
}
