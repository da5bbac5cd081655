//go:build chaos && linux

package chaos

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// long makes faults last longer and adds what takes too long for every change.
var long = flag.Bool("chaos.long", false, "all faults at their full length")

// shortOr is the first value, or in the long run the second.
func shortOr[T any](short, full T) T {
	if *long {
		return full
	}
	return short
}

// workplace holds what the run writes: the binary, Kafka's data, and a directory for each scenario with the service's log and its
// spool. Those of scenarios that pass are removed at once, those of others stay.
var workplace string

func TestMain(m *testing.M) {
	flag.Parse()
	// Toxiproxy's own log.
	zerolog.SetGlobalLevel(zerolog.Disabled)
	var err error
	if workplace, err = os.MkdirTemp("", "capture-chaos-"); err != nil {
		panic(err)
	}
	code := m.Run()
	if kafka, err := oneBroker(); err == nil {
		kafka.close()
	}
	if code == 0 {
		_ = os.RemoveAll(workplace)
	}
	os.Exit(code)
}

// oneBroker is the Kafka that the scenarios share which need only one broker.
var oneBroker = sync.OnceValues(func() (*cluster, error) { return startCluster(filepath.Join(workplace, "kafka"), 1) })

// scenario is a row of the table: a fault, and the ack modes in which it is borne. The modes run at the same time, each in a service
// and under a load of its own, so that a fault of Kafka's is the same for all of them.
type scenario struct {
	name  string
	modes []string
	// brokers is how many Kafka has: 1, unless it is said.
	brokers int
	// shape and rate are each service's load, if not the usual one.
	shape Shape
	rate  float64
	// environ is added to the service's.
	environ []string
	// before prepares a service before its first start.
	before func(*stage, *service) error
	// fault is what happens under load. It returns when it is over.
	fault func(*stage) error
	// spools says that mode auto has to spool in this scenario: else the fault has not been one.
	spools bool
}

// The usual load is moderate, so that latencies are the faults' and not the machine's.
var usual = Shape{Workers: 16, Keys: 4, PerKey: 5, Pad: 150}

const usualRate = 2000

// stage is where a scenario is played.
type stage struct {
	scenario
	dir      string
	kafka    *cluster
	services []*service
	loads    map[*service]*Load
	mu       sync.Mutex
	// further is what a line says beside the verdict, and excused which events were damaged on purpose.
	further map[*service][]string
	excused map[*service][]Event
	undo    []func() error
}

// each runs f for every service at the same time.
func (s *stage) each(f func(*service) error) error {
	faults := make([]error, len(s.services))
	var all sync.WaitGroup
	for i, service := range s.services {
		all.Go(func() {
			if err := f(service); err != nil {
				faults[i] = fmt.Errorf("%s: %w", service.mode, err)
			}
		})
	}
	all.Wait()
	return errors.Join(faults...)
}

// say adds to a service's line.
func (s *stage) say(of *service, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.further[of] = append(s.further[of], fmt.Sprintf(format, args...))
}

// later has something undone when the stage is struck, in reverse order.
func (s *stage) later(undo func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undo = append(s.undo, undo)
}

// newStage prepares a scenario up to the start of its services. t's cleanup strikes the stage.
func newStage(t *testing.T, sc scenario) *stage {
	if sc.rate == 0 {
		sc.rate = usualRate
	}
	if sc.shape == (Shape{}) {
		sc.shape = usual
	}
	s := &stage{
		scenario: sc, dir: filepath.Join(workplace, sc.name), loads: map[*service]*Load{},
		further: map[*service][]string{}, excused: map[*service][]Event{},
	}
	t.Cleanup(func() { s.strike(t) })
	var err error
	if sc.brokers <= 1 {
		s.kafka, err = oneBroker()
	} else if s.kafka, err = startCluster(filepath.Join(s.dir, "kafka"), sc.brokers); err == nil {
		s.later(func() error { s.kafka.close(); return nil })
	}
	require.NoError(t, err)
	// What a scenario that failed has left.
	require.NoError(t, s.kafka.cure())
	for _, mode := range only(sc.modes) {
		service, err := newService(filepath.Join(s.dir, mode), mode, s.kafka, sc.environ...)
		require.NoError(t, err)
		s.services = append(s.services, service)
	}
	if sc.before != nil {
		require.NoError(t, s.each(func(service *service) error { return sc.before(s, service) }))
	}
	return s
}

// strike ends what the stage has started. The logs stay if the scenario has failed.
func (s *stage) strike(t *testing.T) {
	for _, load := range s.loads {
		load.Stop()
	}
	for _, service := range s.services {
		if service.process != nil {
			service.kill()
		}
	}
	for _, undo := range slices.Backward(s.undo) {
		if err := undo(); err != nil {
			t.Error(err)
		}
	}
	if !t.Failed() {
		_ = os.RemoveAll(s.dir)
		return
	}
	for _, service := range s.services {
		t.Logf("%s, at its end:\n%s", service.log(), tail(service.log()))
	}
}

// load puts every service under the scenario's load, and returns when it is acknowledged at the rate that it is sent at.
func (s *stage) load() error {
	for _, service := range s.services {
		s.loads[service] = StartLoad(service.url, s.shape, s.rate)
	}
	return s.flow()
}

const (
	// flowFor is how many seconds' worth of events has to be acknowledged for a load to flow.
	flowFor = 1
	// flowPatience is how long that may take. A producer that has given up on a broker asks for it again after some seconds.
	flowPatience = 40 * time.Second
)

// flow returns when every service has acknowledged what is sent in a second, from now on.
func (s *stage) flow() error {
	return s.each(func(service *service) error {
		load := s.loads[service]
		goal := load.Acked() + int64(flowFor*s.rate)
		err := poll(flowPatience, 10*time.Millisecond, func() (bool, error) { return load.Acked() >= goal, nil })
		if err != nil {
			return fmt.Errorf("%d events short of %d: %w", goal-load.Acked(), int64(flowFor*s.rate), err)
		}
		return nil
	})
}

// drainPatience is how long a spool may take to be empty after the end of the load.
func drainPatience() time.Duration { return shortOr(time.Minute, 10*time.Minute) }

// finish ends a service in the way that it is meant to end, with an empty spool, and says what became of its loads' events.
func (s *stage) finish(of *service, histories ...*History) (Verdict, error) {
	judge := NewJudge(histories...)
	for _, e := range s.excused[of] {
		judge.Excuse(e)
	}
	if err := of.awaitDrain(drainPatience()); err != nil {
		return judge.Verdict(), err
	}
	corrupt, err := of.metric(metricCorrupt)
	if err != nil {
		return judge.Verdict(), err
	}
	if corrupt > 0 {
		s.say(of, "corrupt=%.0f", corrupt)
	}
	if err := of.terminate(); err != nil {
		return judge.Verdict(), fmt.Errorf("SIGTERM: %w", err)
	}
	if err := ReadTo(judge, s.kafka.direct(), of.prefix, topicWarnings, topicDLQ); err != nil {
		return judge.Verdict(), err
	}
	v := judge.Verdict()
	if v.Damaged > int(corrupt) {
		return v, fmt.Errorf("%d damaged events are lost, but the service says that only %.0f were corrupt", v.Damaged, corrupt)
	}
	return v, nil
}

// pass tells whether the promise was kept, and prints the line.
func (s *stage) pass(t *testing.T, of *service, v Verdict) {
	t.Helper()
	line := v.Line(s.name+"/"+of.mode, s.further[of]...)
	fmt.Println(line)
	assert.Positive(t, v.Acked, line)
	assert.Zero(t, v.Mangled+v.Unknown, line)
	if of.mode == modeMemory {
		return // It promises nothing.
	}
	assert.Zero(t, v.Lost, "%s\nsuch as %+v", line, v.Missing)
	assert.Zero(t, v.Reordered, line)
	if s.spools && of.mode == modeAuto {
		assert.Positive(t, v.ByAck[modeSpool], "nothing was spooled, so this was no fault: %s", line)
	}
}

// play plays a scenario from its beginning to its end.
func play(t *testing.T, sc scenario) {
	s := newStage(t, sc)
	require.NoError(t, s.each((*service).run))
	require.NoError(t, s.load())
	require.NoError(t, s.fault(s))
	require.NoError(t, s.flow(), "after the fault")
	verdicts, err := s.stopAndJudge()
	for i, v := range verdicts {
		s.pass(t, s.services[i], v)
	}
	require.NoError(t, err)
}

// stopAndJudge ends the loads, and then the services.
func (s *stage) stopAndJudge() ([]Verdict, error) {
	verdicts := make([]Verdict, len(s.services))
	histories := make([]*History, len(s.services))
	for i, service := range s.services {
		histories[i] = s.loads[service].Stop()
		delete(s.loads, service)
	}
	err := s.each(func(service *service) (err error) {
		i := slices.Index(s.services, service)
		verdicts[i], err = s.finish(service, histories[i])
		return err
	})
	return verdicts, err
}

func TestNoAcknowledgedEventIsLost(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) { play(t, sc) })
	}
}

// only keeps the modes that are named in CAPTURE_CHAOS_MODES, for whoever works on one.
func only(modes []string) []string {
	named := os.Getenv("CAPTURE_CHAOS_MODES")
	if named == "" {
		return modes
	}
	return slices.DeleteFunc(slices.Clone(modes), func(mode string) bool { return !slices.Contains(strings.Split(named, ","), mode) })
}
