//go:build powercut && linux

package powercut

import (
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/testkit/proof"
)

// recording is what a service has done to its directory, what it has promised meanwhile, and what was in Kafka.
type recording struct {
	scenario
	// dir holds the traces and the output. root is the service's working directory, of which the model knows
	// everything.
	dir, root string
	before    Tree
	// earlier are promises from before the recording, all of which hold.
	earlier []*proof.History

	kafka   *kafka
	service *service
	front   *httptest.Server
	target  atomic.Pointer[url.URL]
	load    *proof.Load
	runs    int
	left    []Tree // by each run

	// These are the results of the recording.
	steps   []Step
	history *proof.History
	inKafka []stored
}

// shape and rate describe the load. It has few users, so that their order is tested, and few events in a request, so
// that there are many commits.
var shape = proof.Shape{Workers: 8, Keys: 2, PerKey: 2, Pad: 1000}

const rate = 1500

// record plays a scenario on a directory that holds the tree.
func record(sc scenario, dir string, before Tree, earlier ...*proof.History) (_ *recording, err error) {
	r := &recording{scenario: sc, dir: dir, root: filepath.Join(dir, "root"), before: before, earlier: earlier}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := before.Write(r.root); err != nil {
		return nil, err
	}
	if r.kafka, err = newKafka(10 * time.Millisecond); err != nil {
		return nil, err
	}
	defer r.kafka.close()
	r.kafka.leave()
	// The load keeps its address although the service gets another one at each start.
	r.front = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:  func(request *httputil.ProxyRequest) { request.SetURL(r.target.Load()) },
		ErrorLog: log.New(io.Discard, "", 0),
	})
	defer r.front.Close()
	r.target.Store(&url.URL{Scheme: "http", Host: "127.0.0.1:1"})
	r.load = proof.StartLoad(r.front.URL, shape, rate)
	err = r.play(r)
	r.history = r.load.Stop()
	if r.service != nil {
		r.service.kill()
	}
	if err != nil {
		return nil, err
	}
	r.kafka.back()
	if r.inKafka, err = r.kafka.read(); err != nil {
		return nil, err
	}
	return r, r.understand()
}

// start starts the service under strace.
func (r *recording) start() (err error) {
	run := r.runs
	r.runs++
	output := filepath.Join(r.dir, fmt.Sprint("output.", run))
	if r.service, err = serve(r.root, output, r.trace(run), r.environment(r.kafka.address())); err != nil {
		return err
	}
	target, err := url.Parse(r.service.URL)
	r.target.Store(target)
	return err
}

func (r *recording) trace(run int) string { return filepath.Join(r.dir, fmt.Sprint("trace.", run)) }

// flow waits until that many more events are acknowledged.
func (r *recording) flow(events int64) error {
	goal := r.load.Acked() + events
	err := poll(func() (bool, error) { return r.load.Acked() >= goal, r.service.Ended() })
	if err != nil {
		return fmt.Errorf("%d of %d events were acknowledged: %w", r.load.Acked()-goal+events, events, err)
	}
	return nil
}

// kill ends the service like kill -9.
func (r *recording) kill() error {
	r.service.kill()
	return r.look()
}

// terminate ends the service with SIGTERM.
func (r *recording) terminate() error {
	if err := r.service.terminate(); err != nil {
		return err
	}
	return r.look()
}

// look records the directory that a run has left.
func (r *recording) look() error {
	left, err := ReadTree(r.root)
	r.left = append(r.left, left)
	return err
}

// understand makes the steps from the traces. It makes sure that the model and the real directories agree.
func (r *recording) understand() error {
	disk, err := r.disk()
	if err != nil {
		return err
	}
	for run := range r.runs {
		trace, err := os.ReadFile(r.trace(run))
		if err != nil {
			return err
		}
		steps, err := Parse(trace, run)
		if err != nil {
			return fmt.Errorf("%s: %w", r.trace(run), err)
		}
		for _, step := range steps {
			mine, err := disk.Apply(step)
			if err != nil {
				return fmt.Errorf("%s: %w", r.trace(run), err)
			}
			if mine {
				r.steps = append(r.steps, step)
			}
		}
		r.steps = append(r.steps, disk.Resolve(r.left[run], steps[len(steps)-1].At)...)
		left := disk.After(Everything, rand.New(rand.NewPCG(0, 0)))
		if differences := left.Differences(r.left[run]); len(differences) > 0 {
			return fmt.Errorf("the model is not what the process has left:\n%s", strings.Join(differences, "\n"))
		}
	}
	return nil
}

// disk returns the model before the first step. The paths in the traces begin at the root.
func (r *recording) disk() (*Disk, error) {
	disk, err := newDisk(r.root, r.before)
	if err == nil {
		disk.Journal = r.journal
	}
	return disk, err
}

// obligations returns the promises that had been given at a time.
func (r *recording) obligations(at time.Time) []*proof.History {
	return append(slices.Clone(r.earlier), r.history.Between(time.Time{}, at))
}

// cuts chooses the steps before which the power is cut. Half of them are anywhere. The other half are near a change of
// names or a sync of a directory, both of which are rare among all the writes.
func (r *recording) cuts(n int, random *rand.Rand) []int {
	var rare []int
	for i, step := range r.steps {
		switch step.Name {
		case "write", "pwrite64", "fsync", "fdatasync", "close", "lseek":
		default:
			// The cut may come in the course of the call, or during the steps behind it.
			for j := i; j < min(i+8, len(r.steps)); j++ {
				rare = append(rare, j)
			}
		}
	}
	var cuts []int
	for i := range n {
		if i%2 == 0 && len(rare) > 0 {
			cuts = append(cuts, rare[random.IntN(len(rare))])
		} else {
			cuts = append(cuts, random.IntN(len(r.steps)))
		}
	}
	slices.Sort(cuts)
	return cuts
}
