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

	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/proof"
)

// long makes faults last longer, and adds scenarios that take too long for every change.
var long = flag.Bool("chaos.long", false, "all faults at their full length")

// shortOr returns the first value, or in the long run the second.
func shortOr[T any](short, full T) T {
	if *long {
		return full
	}
	return short
}

// workplace holds the files that the run writes: the binary, Kafka's data, and a directory for each scenario with the
// service's log and its spool. The directory of a scenario that passes is removed at once; the others stay.
var workplace string

func TestMain(m *testing.M) {
	flag.Parse()
	// This is Toxiproxy's own log.
	zerolog.SetGlobalLevel(zerolog.Disabled)
	var err error
	if workplace, err = os.MkdirTemp("", "capture-chaos-"); err != nil {
		panic(err)
	}
	code := m.Run()
	shared.close()
	if code == 0 {
		_ = os.RemoveAll(workplace)
	}
	os.Exit(code)
}

// shared holds the clusters that scenarios share: one of one broker, which stays, and one of three, which ends when a
// scenario comes that does not need it.
var shared clusters

type clusters struct {
	one, three *cluster
	started    int
}

func (c *clusters) of(brokers int) (*cluster, error) {
	wanted := &c.one
	if brokers > 1 {
		wanted = &c.three
	} else if c.three != nil {
		c.three.close()
		c.three = nil
	}
	if *wanted == nil {
		c.started++
		started, err := startCluster(filepath.Join(workplace, fmt.Sprint("kafka-", c.started)), brokers)
		if err != nil {
			return nil, err
		}
		*wanted = started
	}
	return *wanted, nil
}

func (c *clusters) close() {
	for _, started := range []*cluster{c.one, c.three} {
		if started != nil {
			started.close()
		}
	}
}

// scenario is a row of the table: a fault, and the ack modes that bear it. The modes run at the same time, each in a
// service and under a load of its own, so that all of them meet the same fault of Kafka.
type scenario struct {
	name  string
	modes []string
	// brokers is how many brokers Kafka has; 0 means 1.
	brokers int
	// shape and rate describe each service's load, if it is not the usual one.
	shape proof.Shape
	rate  float64
	// environ is added to the service's environment.
	environ []string
	// before prepares a service before its first start.
	before func(*stage, *service) error
	// fault plays the fault under load. It returns when the fault is over.
	fault func(*stage) error
	// spools says that mode auto has to spool in this scenario: otherwise the fault was none.
	spools bool
	// letters says that there have to be dead letters: otherwise nothing was refused.
	letters bool
	// fills says that the spool becomes so full that the service asks for less traffic before it has to refuse any. The
	// service then says that it is not ready although it answers 200 (delivery.spool.unready_fill).
	fills bool
	// moves says that topics get more partitions, so that there is no order between the earlier and the later events of
	// a key.
	moves bool
}

// usual is a moderate load, so that latencies come from the faults and not from the machine.
var usual = proof.Shape{Workers: 16, Keys: 4, PerKey: 5, Pad: 150}

const usualRate = 2000

// stage is the place where a scenario is played.
type stage struct {
	scenario
	dir      string
	kafka    *cluster
	services []*service
	loads    map[*service]*proof.Load
	mu       sync.Mutex
	// further holds what a line says beside the verdict.
	further map[*service][]string
	// excused holds the events that were damaged on purpose. excuses holds functions that say which batches may be
	// lost.
	excused map[*service][]proof.Event
	excuses map[*service][]func(proof.Batch) bool
	// kept holds the messages of topics that no longer exist. generation counts how often topics have gone.
	kept       map[*service][]proof.Copy
	generation int
	// others are the services' further loads, which have ended or end with the scenario's own load.
	others map[*service][]*proof.Load
	undo   []func() error
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

// say adds a figure to a service's line.
func (s *stage) say(of *service, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.further[of] = append(s.further[of], fmt.Sprintf(format, args...))
}

// later registers an undo. When the stage is struck, the undos run in reverse order.
func (s *stage) later(undo func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undo = append(s.undo, undo)
}

// newStage prepares a scenario up to the start of its services. The cleanup of t strikes the stage.
func newStage(t *testing.T, sc scenario) *stage {
	if sc.rate == 0 {
		sc.rate = usualRate
	}
	if sc.shape == (proof.Shape{}) {
		sc.shape = usual
	}
	s := &stage{
		scenario: sc, dir: filepath.Join(workplace, sc.name), loads: map[*service]*proof.Load{},
		further: map[*service][]string{}, excused: map[*service][]proof.Event{},
		excuses: map[*service][]func(proof.Batch) bool{},
		kept:    map[*service][]proof.Copy{}, others: map[*service][]*proof.Load{},
	}
	t.Cleanup(func() { s.strike(t) })
	var err error
	s.kafka, err = shared.of(max(sc.brokers, 1))
	require.NoError(t, err)
	require.NoError(t, s.kafka.revive())
	for _, mode := range only(sc.modes) {
		service, err := newService(filepath.Join(s.dir, mode), mode, s.kafka, sc.environ...)
		require.NoError(t, err)
		s.services = append(s.services, service)
		service.watch(sc.fills)
	}
	if sc.before != nil {
		require.NoError(t, s.each(func(service *service) error { return sc.before(s, service) }))
	}
	return s
}

// strike ends the processes and loads that the stage has started. The logs stay if the scenario has failed.
func (s *stage) strike(t *testing.T) {
	for of, load := range s.loads {
		for _, load := range append(s.others[of], load) {
			load.Stop()
		}
	}
	for _, service := range s.services {
		service.watched.end()
		if service.Process != nil {
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
		t.Logf("%s, at its end:\n%s", service.log(), process.Tail(service.log()))
	}
}

// load puts every service under the scenario's load. It returns when the service acknowledges at the rate at which the
// load sends.
func (s *stage) load() error {
	for _, service := range s.services {
		s.loads[service] = service.load(s.shape, s.rate)
	}
	return s.flow()
}

const (
	// flowFor is how many seconds' worth of events a service has to acknowledge before its load flows.
	flowFor = 1
	// flowPatience is how long a load may take to flow. A producer that has given up on a broker asks for it again
	// after some seconds. Patience is no measure: it is what the slowest machine needs.
	flowPatience = 5 * time.Minute
	// observations is how often the load may be observed until it has half its rate: a machine that does other work
	// slows it down as well.
	observations = 20
)

// flow returns when every service has acknowledged a second's worth of further events.
func (s *stage) flow() error {
	return s.each(func(service *service) error {
		load := s.loads[service]
		goal := load.Acked() + int64(flowFor*s.rate)
		err := process.Poll(flowPatience, 10*time.Millisecond, func() (bool, error) {
			return load.Acked() >= goal, nil
		})
		if err != nil {
			return fmt.Errorf("%d events short of %d: %w", goal-load.Acked(), int64(flowFor*s.rate), err)
		}
		return nil
	})
}

// observe watches the services for some time, under a fault that has lasted long enough to be noticed. During that time
// the services in the refusing modes have to answer nothing but 503. The others have to answer 200, at half their rate
// at least. If one does not, it is watched once more, and the refusing ones have to refuse for as long.
func (s *stage) observe(d time.Duration, refusing ...string) error {
	before := map[*service]int64{}
	for _, service := range s.services {
		before[service] = s.loads[service].Acked()
	}
	err := s.each(func(service *service) error {
		if slices.Contains(refusing, service.mode) {
			last(d)
			return nil
		}
		load, most := s.loads[service], int64(0)
		for range observations {
			from := load.Acked()
			last(d)
			most = max(most, load.Acked()-from)
			if float64(most) >= s.rate*d.Seconds()/2 {
				return nil
			}
		}
		return fmt.Errorf("%d events were acknowledged in %s, of %.0f a second", most, d, s.rate)
	})
	for _, service := range s.services {
		acked := s.loads[service].Acked() - before[service]
		if slices.Contains(refusing, service.mode) && acked > 0 {
			err = errors.Join(err, fmt.Errorf("%s: %d events were acknowledged although Kafka does not take them",
				service.mode, acked))
		}
	}
	return err
}

// excuseBatches tells the judge of the service's events which batches may be lost.
func (s *stage) excuseBatches(of *service, yes func(proof.Batch) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.excuses[of] = append(s.excuses[of], yes)
}

// drainPatience is how long the spool may take to be empty after the end of the load.
func drainPatience() time.Duration { return shortOr(5*time.Minute, 10*time.Minute) }

// finish ends a service in the intended way, with an empty spool, and returns the verdict on the events of its loads.
func (s *stage) finish(of *service, histories ...*proof.History) (proof.Verdict, error) {
	judge := proof.NewJudge(histories...)
	for _, e := range s.excused[of] {
		judge.Excuse(e)
	}
	for _, yes := range s.excuses[of] {
		judge.ExcuseBatches(yes)
	}
	if s.moves {
		judge.KeysMove()
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
	of.watched.end()
	if err := of.terminate(); err != nil {
		return judge.Verdict(), fmt.Errorf("SIGTERM: %w", err)
	}
	for _, c := range s.kept[of] {
		judge.See(c)
	}
	if err := s.read(of, judge.See); err != nil {
		return judge.Verdict(), err
	}
	if err := of.letters(judge.SeeLetter); err != nil {
		return judge.Verdict(), err
	}
	v := judge.Verdict()
	if v.Damaged > int(corrupt) {
		return v, fmt.Errorf("%d damaged events are lost, but the service says that only %.0f were corrupt", v.Damaged,
			corrupt)
	}
	return v, nil
}

// read shows the messages in a service's topics.
func (s *stage) read(of *service, see func(proof.Copy)) error {
	return proof.ReadCopies(s.kafka.direct(), of.prefix, topicWarnings, topicDLQ, s.generation, see)
}

// pass requires that the promise was kept, and prints the line.
func (s *stage) pass(t *testing.T, of *service, v proof.Verdict) {
	t.Helper()
	line := v.Line(s.name+"/"+of.mode, append(s.further[of], fmt.Sprint("untrue=", of.watched.untrue))...)
	fmt.Println(line)
	assert.Positive(t, v.Acked, line)
	assert.Zero(t, v.Mangled+v.Unknown, line)
	assert.Zero(t, v.Innocent, "dead letters that Kafka has not refused by themselves: %s", line)
	assert.Zero(t, of.watched.untrue, "%s\nsuch as %s", line, of.watched.sample)
	if s.letters {
		assert.Positive(t, v.DLQ, "nothing was refused, so this was no fault: %s", line)
	}
	if of.mode == modeMemory {
		return // Mode memory promises nothing.
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

// stopAndJudge ends the loads and then the services, and returns the verdicts.
func (s *stage) stopAndJudge() ([]proof.Verdict, error) {
	verdicts := make([]proof.Verdict, len(s.services))
	histories := make([][]*proof.History, len(s.services))
	for i, service := range s.services {
		for _, load := range append(s.others[service], s.loads[service]) {
			histories[i] = append(histories[i], load.Stop())
		}
		delete(s.loads, service)
	}
	err := s.each(func(service *service) (err error) {
		i := slices.Index(s.services, service)
		verdicts[i], err = s.finish(service, histories[i]...)
		return err
	})
	return verdicts, err
}

func TestNoAcknowledgedEventIsLost(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) { play(t, sc) })
	}
}

// only keeps the modes that CAPTURE_CHAOS_MODES names, for a developer who works on one.
func only(modes []string) []string {
	named := os.Getenv("CAPTURE_CHAOS_MODES")
	if named == "" {
		return modes
	}
	return slices.DeleteFunc(slices.Clone(modes),
		func(mode string) bool { return !slices.Contains(strings.Split(named, ","), mode) })
}
