//go:build powercut && linux

package powercut

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/testkit/proof"
)

var (
	cutsFlag = flag.Int("powercut.cuts", 30, "how often each scenario's power is cut")
	seedFlag = flag.Uint64("powercut.seed", 0,
		"begin of the random numbers that choose cuts and what survives them; 0: any")
)

// workplace holds the binary and the recordings of the scenarios. The recordings of failed scenarios stay.
var workplace string

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if workplace, err = os.MkdirTemp("", "capture-powercut-"); err == nil {
		workplace, err = filepath.EvalSymlinks(workplace)
	}
	if err != nil {
		panic(err)
	}
	if *seedFlag == 0 {
		*seedFlag = rand.Uint64()
	}
	code := m.Run()
	if code == 0 {
		_ = os.RemoveAll(workplace)
	}
	os.Exit(code)
}

// scenario is a row of the table: a service, and what happens to it during the recording.
type scenario struct {
	name    string
	environ []string
	play    func(*recording) error
	// embedded says that the service has no Kafka but its own broker.
	embedded bool
	// journal says that the disk behaves like ext4 and XFS: Disk.Journal.
	journal bool
	// mayLose says that nothing is promised. The line says how much is lost, and a loss is no fault.
	mayLose bool
	// again says that the power is cut twice. It plays the service after the first cut, while that is recorded, and the
	// second cut falls into this recording.
	again func(*recording) error
}

var (
	inSpool = []string{"CAPTURE_DELIVERY__ACK=spool"}
	inAuto  = []string{"CAPTURE_DELIVERY__ACK=auto", "CAPTURE_DELIVERY__SPOOL_AFTER=50ms"}
	// inBroker makes an acknowledgement of the embedded broker as safe as one of the spool.
	inBroker = []string{"CAPTURE_DELIVERY__ACK=kafka", "CAPTURE_EMBEDDED__SYNC_WRITES=true",
		"CAPTURE_EMBEDDED__KAFKA_LISTEN=127.0.0.1:0",
		// Each partition has several files, and retention removes nothing.
		"CAPTURE_EMBEDDED__RETENTION_BYTES=12MiB"}
)

var scenarios = []scenario{
	{name: "spool", environ: inSpool, play: kafkaAway},
	{name: "auto", environ: inAuto, play: kafkaAway},
	{name: "drain-spool", environ: inSpool, play: draining},
	{name: "drain-auto", environ: inAuto, play: draining},
	{name: "again", environ: inSpool, play: draining, again: drainingAgain},
	{name: "embedded", environ: inBroker, play: alone, embedded: true, journal: true},
	{name: "embedded-posix", environ: inBroker, play: alone, embedded: true, mayLose: true},
}

// environment returns the environment of the service, with Kafka at the given address.
func (s *scenario) environment(address string) []string {
	environ := append([]string{
		fmt.Sprint("CAPTURE_KAFKA__TOPICS__PARTITIONS=", partitions),
		"CAPTURE_DELIVERY__SPOOL__SEGMENT_BYTES=1MiB", "CAPTURE_DELIVERY__SPOOL__RESERVE=0",
		"CAPTURE_DELIVERY__DRAIN__MIN_RATE=1GiB",
	}, s.environ...)
	if s.embedded {
		return environ
	}
	return append(environ, "CAPTURE_KAFKA__BROKERS="+address)
}

// kafkaAway: Kafka is never there. The service is killed, and stopped.
func kafkaAway(r *recording) error {
	return inTurn(
		r.start, r.flows(1500), r.kill,
		r.start, r.flows(1500), r.terminate,
	)
}

// draining: Kafka comes and goes, so that the spool fills and empties. The service is killed while it drains, and
// stopped.
func draining(r *recording) error {
	return inTurn(
		r.start, r.flows(1500), r.comes, r.flows(1500), r.goes, r.flows(1500), r.comes, r.flows(50), r.kill,
		r.start, r.flows(1500), r.goes, r.flows(700), r.terminate,
	)
}

// drainingAgain plays a service whose power was cut once.
func drainingAgain(r *recording) error {
	return inTurn(
		r.start, r.flows(300), r.comes, r.flows(300), r.kill,
		r.start, r.flows(300), r.terminate,
	)
}

// alone: the service has its own broker.
func alone(r *recording) error {
	return inTurn(
		r.start, r.flows(1000), r.kill,
		r.start, r.flows(1000), r.terminate,
		r.start, r.flows(500), r.kill,
	)
}

func inTurn(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (r *recording) flows(events int64) func() error { return func() error { return r.flow(events) } }

func (r *recording) comes() error {
	r.kafka.back()
	return nil
}

func (r *recording) goes() error {
	r.kafka.leave()
	return nil
}

// outcome is the result of the cuts of a scenario.
type outcome struct {
	mu sync.Mutex
	// cuts and layouts count the attempts. pending is how many cuts met changes that were not synced.
	cuts, layouts, pending         int
	acked, lost, reordered, others int
	corrupt                        float64
	// failed is how many layouts have no verdict.
	failed int
	faults []string
}

// layout is a directory that a power cut has left.
type layout struct {
	of    *recording
	tree  Tree
	at    time.Time
	about string
}

// layoutsPerCut is how many directories each cut leaves: the least that is possible, a random one, and each of the
// other fates in turn.
const layoutsPerCut = 3

// cut cuts the power at n steps of a recording, and calls try with each layout.
func (o *outcome) cut(r *recording, n int, random *rand.Rand, try func(layout)) error {
	disk, err := r.disk()
	if err != nil {
		return err
	}
	next := 0
	for i, at := range r.cuts(n, random) {
		for ; next < at; next++ {
			if _, err := disk.Apply(r.steps[next]); err != nil {
				return err
			}
		}
		pending := disk.Pending()
		o.mu.Lock()
		o.cuts++
		if len(pending) > 0 {
			o.pending++
		}
		o.mu.Unlock()
		for _, fate := range [layoutsPerCut]Fate{Nothing, Mixed, []Fate{Everything, NamesOnly, ContentOnly}[i%3]} {
			try(layout{of: r, tree: disk.After(fate, random), at: r.steps[at].At, about: fmt.Sprintf(
				"step %d of %d of run %d, %s; survives: %s; not durable:\n    %s",
				at, len(r.steps), r.steps[at].Run, r.steps[at], fate, strings.Join(pending, "\n    "))})
		}
	}
	return nil
}

// try starts the service on a layout. It compares the events that the service then delivers, and those that were in
// Kafka before, with the promises.
func (o *outcome) try(l layout, number int) {
	dir := filepath.Join(l.of.dir, fmt.Sprint("layout.", number))
	verdict, corrupt, err := l.verdict(dir)
	_ = os.RemoveAll(dir)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.layouts++
	o.acked += verdict.Acked
	o.lost += verdict.Lost
	o.reordered += verdict.Reordered
	o.others += verdict.Mangled + verdict.Unknown + verdict.DLQ
	o.corrupt += corrupt
	if err == nil && verdict.Lost+verdict.Reordered+verdict.Mangled+verdict.Unknown+verdict.DLQ == 0 && corrupt == 0 {
		return
	}
	kept := filepath.Join(l.of.dir, fmt.Sprint("failed.", number))
	o.faults = append(o.faults, fmt.Sprintf("%s lost=%d reordered=%d corrupt=%.0f error=%v\n  %s\n  such as %+v",
		kept, verdict.Lost, verdict.Reordered, corrupt, errors.Join(err, l.tree.Write(kept)), l.about, verdict.Missing))
	if err != nil {
		o.failed++
	}
}

// probe is the load on a service after a cut.
var probe = proof.Shape{Workers: 2, Keys: 2, PerKey: 2, Pad: 100}

// verdict tries a layout in a directory.
func (l layout) verdict(dir string) (verdict proof.Verdict, corrupt float64, err error) {
	if err := l.tree.Write(dir); err != nil {
		return verdict, 0, err
	}
	kafka, err := newKafka(0)
	if err != nil {
		return verdict, 0, err
	}
	defer kafka.close()
	service, err := serve(dir, dir+".output", "", l.of.environment(kafka.address()))
	if err != nil {
		return verdict, 0, err
	}
	defer func() { _ = errors.Join(os.Remove(dir+".output"), os.RemoveAll(dir+accounts)) }()
	defer service.kill()

	// New events come behind the old ones.
	load := proof.StartLoad(service.URL, probe, 0)
	err = poll(func() (bool, error) { return load.Acked() >= int64(4*probe.Size()), service.Ended() })
	history := load.Stop()
	if err != nil {
		return verdict, 0, fmt.Errorf("the service takes no events: %w", err)
	}
	var messages []stored
	if l.of.embedded {
		err = proof.Read([]string{service.Broker}, "", topicWarnings,
			func(m proof.Message) { messages = append(messages, stored{Message: m}) })
	} else {
		var metrics map[string]float64
		metrics, err = service.drained()
		corrupt = metrics[metricCorrupt]
		if err == nil {
			messages, err = kafka.read()
		}
	}
	if err != nil {
		return verdict, corrupt, err
	}
	judge := proof.NewJudge(append(l.of.obligations(l.at), history)...)
	for _, m := range l.of.inKafka {
		if !m.acked.After(l.at) {
			judge.See(m.copy())
		}
	}
	for _, m := range messages {
		m.Offset += 2 * behind
		judge.See(m.copy())
	}
	return judge.Verdict(), corrupt, nil
}

// behind is added to offsets, to put messages behind those of another broker.
const behind = 1 << 40

// copy returns the message as the judge looks at it.
func (m stored) copy() proof.Copy {
	// All topics but that of events and that of dead letters stay empty, so a partition's number is enough.
	return proof.Copy{
		ID: m.ID, Value: m.Value, Partition: m.Partition, Offset: m.Offset, DLQ: strings.HasSuffix(m.Topic, "_dlq"),
	}
}

// run records a scenario, and cuts its power.
func (o *outcome) run(sc scenario, random *rand.Rand) (*recording, error) {
	layouts := make(chan layout)
	var workers sync.WaitGroup
	number := 0
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for l := range layouts {
				o.mu.Lock()
				number++
				mine := number
				o.mu.Unlock()
				o.try(l, mine)
			}
		})
	}
	first, err := o.record(sc, random, func(l layout) { layouts <- l })
	close(layouts)
	workers.Wait()
	return first, err
}

func (o *outcome) record(sc scenario, random *rand.Rand, try func(layout)) (*recording, error) {
	r, err := record(sc, filepath.Join(workplace, sc.name), Tree{})
	if err != nil {
		return nil, err
	}
	if sc.again == nil {
		return r, o.cut(r, *cutsFlag, random, try)
	}
	return r, o.cutAgain(r, random, try)
}

// cutsPerFirst is how many second cuts follow each first cut.
const cutsPerFirst = 10

// cutAgain cuts the power, records what the service does then, and cuts the power again.
func (o *outcome) cutAgain(r *recording, random *rand.Rand, try func(layout)) error {
	firsts := max(1, *cutsFlag/cutsPerFirst)
	var left []layout
	if err := new(outcome).cut(r, firsts, random, func(l layout) { left = append(left, l) }); err != nil {
		return err
	}
	for i := range firsts {
		// first is the directory in which anything may have survived the cut.
		first := left[layoutsPerCut*i+1]
		sc := r.scenario
		sc.play = sc.again
		second, err := record(sc, filepath.Join(r.dir, fmt.Sprint("again.", i)), first.tree, r.obligations(first.at)...)
		if err != nil {
			return fmt.Errorf("after a cut at %s: %w", first.about, err)
		}
		for i := range second.inKafka {
			second.inKafka[i].Offset += behind
		}
		for _, m := range r.inKafka {
			if !m.acked.After(first.at) {
				second.inKafka = append(second.inKafka, m)
			}
		}
		if err := o.cut(second, cutsPerFirst, random, try); err != nil {
			return err
		}
	}
	return nil
}

// faultsShown is how many faults of a scenario are shown.
const faultsShown = 5

func TestNoAcknowledgedEventIsLostInAPowerCut(t *testing.T) {
	for i, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			started := time.Now()
			o := new(outcome)
			r, err := o.run(sc, rand.New(rand.NewPCG(*seedFlag, uint64(i))))
			if r != nil {
				line := fmt.Sprintf("powercut/%-12s cuts=%d layouts=%d acked=%d lost=%d reordered=%d corrupt=%.0f "+
					"failed=%d unsynced=%d steps=%d took=%s",
					sc.name, o.cuts, o.layouts, r.history.Acked(), o.lost, o.reordered, o.corrupt, o.failed,
					o.pending, len(r.steps),
					time.Since(started).Round(100*time.Millisecond))
				fmt.Println(line)
				if sc.mayLose {
					o.faults = nil
				}
				for _, fault := range o.faults[:min(len(o.faults), faultsShown)] {
					t.Error(fault)
				}
				if more := len(o.faults) - faultsShown; more > 0 {
					t.Errorf("and %d more faults", more)
				}
				assert.Positive(t, o.acked, line)
				assert.Positive(t, o.pending, "no cut has found anything that was not synced: %s", line)
				assert.Zero(t, o.others, "messages that nobody has sent, or dead letters: %s", line)
			}
			require.NoError(t, err, "with -powercut.seed=%d", *seedFlag)
			if !t.Failed() {
				require.NoError(t, errors.Join(os.RemoveAll(filepath.Join(workplace, sc.name))))
			}
		})
	}
}
