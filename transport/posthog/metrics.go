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

	numbers, surrogates, controls, bytes tally.Counter
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
		controls: repaired("control_character"), bytes: repaired("invalid_utf8"),
	}
}

// Mend has the text scanned. If the text is not UTF-8, or the scan meets a fault that Repair can mend, Mend repairs the
// text and has the copy scanned. The copy counts against the lease. Mend notes in the batch whether it or the decoder
// has mended anything, and sets the payload's Replaced and Malformed back, which it has dealt with.
func (m *Metrics) Mend(
	payload *decode.Payload, scan func([]byte) *jsonscan.SyntaxError, scanner *jsonscan.Scanner, batch *events.Batch,
	lease *memory.Lease,
) (*jsonscan.SyntaxError, *events.Error) {
	m.surrogates.Inc(int64(payload.Replaced))
	batch.Repaired = batch.Repaired || payload.Replaced > 0
	payload.Replaced = 0
	data := payload.Bytes
	if payload.Malformed == nil {
		if fault := scan(data); fault == nil || !scanner.Repairable {
			return fault, nil
		}
	}
	_, size := jsonscan.Survey(data)
	if fault := lease.Take(int64(size)); fault != nil {
		return nil, fault
	}
	mended, done := jsonscan.Repair(data)
	fault := scan(mended)
	if fault != nil {
		fault = fault.Origin(data)
	} else {
		payload.Malformed = nil
		m.numbers.Inc(int64(done.Numbers))
		m.surrogates.Inc(int64(done.Surrogates))
		m.controls.Inc(int64(done.Controls))
		m.bytes.Inc(int64(done.Bytes))
		batch.Repaired = true
	}
	return fault, nil
}
