// Command cpu compares how much CPU time builds of the service take for an event, with a real Kafka:
//
//	testkit/services/services.sh run go run ./testkit/cpu bin/capture /path/to/another/capture
//
// It plays the same load to each binary, in alternating runs, and prints the CPU time of the service's process for an
// event: of single events (-batch 1) or of events in gzip batches of 50 (-batch 50). On a machine that does other work
// as well, the least of several runs says most. The ratio of two binaries in one invocation says more than either
// figure.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/opencapture/capture/testkit/measure"
)

type options struct {
	brokers     string
	batch       int
	events      int
	connections int
	rounds      int
	binaries    []string
}

func main() {
	var o options
	flag.StringVar(&o.brokers, "brokers", os.Getenv("CAPTURE_TEST_KAFKA_BROKERS"),
		"addresses of Kafka's brokers, separated by commas")
	flag.IntVar(&o.batch, "batch", 50, "events of a request: 1 or 50")
	flag.IntVar(&o.events, "events", 0, "events of a run; 0: 1,000,000 in batches, 150,000 single ones")
	flag.IntVar(&o.connections, "connections", 16, "connections to the service")
	flag.IntVar(&o.rounds, "rounds", 5, "runs of each binary")
	flag.Parse()
	o.binaries = flag.Args()
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, "cpu:", err)
		os.Exit(1)
	}
}

func (o options) run() error {
	switch {
	case len(o.binaries) == 0:
		return errors.New("name at least one binary of the service")
	case o.brokers == "":
		return errors.New("name Kafka's brokers with -brokers, or run this by testkit/services/services.sh run")
	case o.batch != 1 && o.batch != 50:
		return fmt.Errorf("-batch must be 1 or 50, got %d", o.batch)
	}
	if o.events == 0 {
		o.events = map[int]int{1: 150_000, 50: 1_000_000}[o.batch]
	}
	costs := make([][]float64, len(o.binaries))
	for round := range o.rounds {
		for i, binary := range o.binaries {
			cost, err := o.measure(binary)
			if err != nil {
				return fmt.Errorf("%s: %w", binary, err)
			}
			costs[i] = append(costs[i], cost)
			fmt.Printf("round %d: %6.2f us of CPU an event  %s\n", round+1, cost, binary)
		}
	}
	first := slices.Min(costs[0])
	for i, binary := range o.binaries {
		least := slices.Min(costs[i])
		slices.Sort(costs[i])
		fmt.Printf("batch=%d least=%.2fus median=%.2fus ratio=%.2f  %s\n", o.batch, least,
			costs[i][len(costs[i])/2], least/first, binary)
	}
	return nil
}

var listening = regexp.MustCompile(`listening\s+(http://\S+)`)

// measure runs the binary under load and returns microseconds of its CPU time an event.
func (o options) measure(binary string) (cost float64, err error) {
	path, err := filepath.Abs(binary)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "capture-cpu")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	process := exec.CommandContext(context.Background(), path) //nolint:gosec // the caller names it
	process.Dir = dir
	process.Env = append(os.Environ(), "CAPTURE_KAFKA__BROKERS="+o.brokers, "CAPTURE_KAFKA__TOPICS__EVENTS=capture-cpu",
		"CAPTURE_TRANSPORT__LISTEN=127.0.0.1:0", "CAPTURE_ADMIN__LISTEN=127.0.0.1:0",
		"CAPTURE_DELIVERY__SPOOL_AFTER=9s", "CAPTURE_KAFKA__TOPICS__PARTITIONS=6")
	out, err := process.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := process.Start(); err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, process.Process.Signal(syscall.SIGTERM))
		err = errors.Join(err, process.Wait())
	}()
	url := ""
	for lines := bufio.NewScanner(out); url == "" && lines.Scan(); {
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			url = found[1]
		}
	}
	if url == "" {
		return 0, errors.New("the service did not say where it listens")
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()

	for deadline := time.Now().Add(time.Minute); ; { // until the topics exist and the spool is drained
		warmUp, err := o.requests(o.events / 10 / o.batch)
		if err != nil {
			return 0, err
		}
		if err := measure.Load(url, o.connections, 0, warmUp); err == nil {
			break
		} else if time.Now().After(deadline) {
			return 0, err
		}
	}
	requests, err := o.requests(o.events / o.batch)
	if err != nil {
		return 0, err
	}
	before, err := measure.CPUTime(process.Process.Pid)
	if err != nil {
		return 0, err
	}
	if err := measure.Load(url, o.connections, 0, requests); err != nil {
		return 0, err
	}
	after, err := measure.CPUTime(process.Process.Pid)
	return float64((after - before).Microseconds()) / float64(o.events), err
}
