// Command cost measures how much work requests are, without a clock. It plays requests of the worst kinds that are
// known, in growing sizes, to the protocols with everything behind them except the Kafka client, and prints for each
//
//	{"name":"v0: one key many times","size":65536,"steps":956144,"allocated":137664,"output":85823}
//
// A step is a run of statements without a branch, in the service's own packages or the libraries that were built with
// -cover. The command needs a build with -cover and -covermode=atomic. The test beside it makes one, and says how much
// the counts may grow. What the assembler of the standard library does in one call, as in copying bytes, is no step;
// where it copies, the bytes are in the other two counts.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/coverage"
	"runtime/debug"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery/encode"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/transport/ai"
	"github.com/opencapture/capture/transport/csp"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/otlp"
	"github.com/opencapture/capture/transport/posthog"
	v1 "github.com/opencapture/capture/transport/posthog/v1"
	"github.com/opencapture/capture/transport/route"
)

// Requests of leastSize bytes are sent, and of twice, four times and so on as many, up to mostSize.
const (
	leastSize = 32 << 10
	mostSize  = 128 << 10
	// maxMessage is beyond what any of them becomes, so that nothing is refused for its size only when it is large.
	maxMessage = 64 << 20
)

// measured is a line of the output.
type measured struct {
	Name  string `json:"name"`
	Size  int    `json:"size"`
	Steps uint64 `json:"steps"`
	// Allocated are the bytes of memory that were taken, and Output the bytes of the messages for Kafka.
	Allocated uint64 `json:"allocated"`
	Output    uint64 `json:"output"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "cost:", err)
		os.Exit(1)
	}
}

func run() error {
	debug.SetGCPercent(1000) // so that pools are not emptied between two parts of one request
	out := json.NewEncoder(os.Stdout)
	var faults []error
	for _, attack := range attacks {
		for size := leastSize; size <= mostSize; size *= 2 {
			line, err := measure(attack, size)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s, %d bytes: %w", attack.name, size, err))
				continue
			}
			if err := out.Encode(line); err != nil {
				return err
			}
		}
	}
	return errors.Join(faults...)
}

// measure plays one request to protocols that have served nothing yet.
func measure(a attack, size int) (measured, error) {
	sink := &encoding{Encoder: encode.NewEncoder(produce.Settings{
		Topics: produce.DefaultTopics(), MaxMessageBytes: maxMessage,
	})}
	routes, err := serve(sink)
	if err != nil {
		return measured{}, err
	}
	request := a.request(size)
	request.Received = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	request.Gates, request.ClientIP, request.RequestID = nil, "192.0.2.1", "00000000-0000-7000-8000-000000000000"
	handle := routes[request.Path].Handle
	if handle == nil {
		return measured{}, fmt.Errorf("nothing serves %s", request.Path)
	}

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := coverage.ClearCounters(); err != nil {
		return measured{}, err
	}
	response := handle(context.Background(), request)
	var counters bytes.Buffer
	if err := coverage.WriteCounters(&counters); err != nil {
		return measured{}, err
	}
	runtime.ReadMemStats(&after)
	steps, err := sum(counters.Bytes())
	switch {
	case err != nil:
		return measured{}, err
	case response.Status != a.status:
		return measured{}, fmt.Errorf("status %d %.200s, want %d", response.Status, response.Body, a.status)
	}
	return measured{
		Name: a.name, Size: size, Steps: steps,
		Allocated: after.TotalAlloc - before.TotalAlloc - uint64(counters.Cap()), Output: sink.bytes,
	}, nil
}

var errCounters = errors.New("the counters are not in the form of Go 1.20 to 1.26: read internal/coverage/defs.go anew")

// sum adds up the counters of all functions. They come as Go's internal/coverage writes them: a header, tables of
// texts, and for each function the number of its counters, two indices and the counters.
func sum(data []byte) (steps uint64, err error) {
	const header, segment, version, leb128 = 32, 16, 1, 2
	if len(data) < header+segment || string(data[:4]) != "\x00cwm" ||
		binary.LittleEndian.Uint32(data[4:]) != version || data[24] != leb128 {
		return 0, errCounters
	}
	functions := binary.LittleEndian.Uint64(data[header:])
	tables := uint64(binary.LittleEndian.Uint32(data[header+8:])) + uint64(binary.LittleEndian.Uint32(data[header+12:]))
	start := (header + segment + tables + 3) &^ 3
	if start > uint64(len(data)) {
		return 0, errCounters
	}
	rest := bytes.NewReader(data[start:])
	for range functions {
		counters := uint64(0)
		for i := uint64(0); i < 3+counters; i++ {
			value, err := binary.ReadUvarint(rest)
			switch {
			case err != nil:
				return 0, errCounters
			case i == 0:
				counters = value
			case i > 2:
				steps += value
			}
		}
	}
	return steps, nil
}

// encoding is a sink that builds the Kafka messages and accepts the events.
type encoding struct {
	*encode.Encoder
	bytes uint64
}

func (e *encoding) Write(_ context.Context, batch *events.Batch) {
	set := e.Encode(batch)
	e.bytes += uint64(set.Bytes())
	e.Recycle(set)
	for i := range batch.Events {
		batch.Events[i].Accept()
	}
}

// serve returns the routes of all protocols that take events, by path.
func serve(sink events.Sink) (map[string]route.Route, error) {
	const memoryLimit, payloadLimit = 4 << 30, 64 << 20
	// What a resource adds to each of its events is bounded by a constant. Here the constant is less than any request.
	limited := otlp.DefaultConfig()
	limited.MaxResource, limited.MaxAttribute = 8<<10, 2<<10
	live := configs.Fixed(posthog.DefaultConfig(), ai.DefaultConfig(), limited)
	budget := memory.NewBudget(memoryLimit)
	decoder := decode.New(route.Fixed(payloadLimit), budget)
	pipeline, err := events.NewPipeline(zap.NewNop(), tally.NoopScope)
	if err != nil {
		return nil, err
	}
	processor := events.NewProcessor(pipeline, sink, events.NewLedger(), zap.NewNop(), tally.NoopScope)

	byPath := map[string]route.Route{}
	add := func(routes []route.Route, err error) error {
		for _, r := range routes {
			byPath[r.Path] = r
		}
		return err
	}
	if err := add(routesOf(posthog.NewHandler(live, decoder, budget, processor, tally.NoopScope))); err != nil {
		return nil, err
	}
	if err := add(routesOf(v1.NewHandler(live, decoder, budget, processor, tally.NoopScope))); err != nil {
		return nil, err
	}
	if err := add(routesOf(ai.NewHandler(live, decoder, budget, processor, tally.NoopScope))); err != nil {
		return nil, err
	}
	if err := add(csp.NewHandler(decoder, budget, processor, tally.NoopScope).Routes(), nil); err != nil {
		return nil, err
	}
	return byPath, add(routesOf(otlp.NewHandler(live, decoder, budget, processor, tally.NoopScope)))
}

func routesOf(handler interface{ Routes() []route.Route }, err error) ([]route.Route, error) {
	if err != nil {
		return nil, err
	}
	return handler.Routes(), nil
}
