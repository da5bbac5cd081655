//go:build state && linux

package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/testkit/process"
)

// node is a process of the service that may run or not, always with the same files.
type node struct {
	dir, binary string
	environ     []string

	mu sync.RWMutex
	// service is nil while the node does not run.
	service *process.Service
	// life is the number of the process, over all nodes.
	life int64
}

// lives is how many processes were started.
var lives atomic.Int64

// url returns where the node takes events; empty: it does not run.
func (n *node) url() string {
	url, _ := n.at()
	return url
}

// at returns where the node takes events, and the number of its process.
func (n *node) at() (url string, life int64) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.service == nil {
		return "", 0
	}
	return n.service.URL, n.life
}

func (n *node) log() string { return filepath.Join(n.dir, "capture.log") }

// start starts a node that does not run, and returns when it serves.
func (n *node) start() error {
	service, err := process.Serve(n.dir, n.log(), n.environ, n.binary, "serve")
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(n.dir), err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.service, n.life = service, lives.Add(1)
	return nil
}

// take returns the running service, if there is one. The node counts as not running from then on.
func (n *node) take() *process.Service {
	n.mu.Lock()
	defer n.mu.Unlock()
	service := n.service
	n.service = nil
	return service
}

// kill ends the node as a crash does.
func (n *node) kill() {
	if service := n.take(); service != nil {
		service.Kill()
	}
}

// stopTimeouts give the stop of a node more time than it takes on any machine: a stop that has given back what the node
// held ends at once. stopPatience is more than app.stop_timeout, within which the node has to end.
var stopTimeouts = []string{"CAPTURE_QUOTA__STOP_TIMEOUT=1m", "CAPTURE_APP__STOP_TIMEOUT=2m"}

const stopPatience = 3 * time.Minute

// stop ends the node in the intended way.
func (n *node) stop() error {
	if service := n.take(); service != nil {
		return service.Terminate(stopPatience)
	}
	return nil
}

// fleet is the nodes that share a store.
type fleet []*node

// skews are how wrong the nodes' clocks are, in seconds, by the second of the process's life: see process.JumpsEnv. The
// last clock jumps.
var skews = []string{"0:0", "0:2", "0:-2", "0:0,6:2,12:-2,18:1"}

// newFleet prepares n nodes. right is the binary, wrong the one with another clock.
func newFleet(dir string, n int, right, wrong string, environ []string) (fleet, error) {
	var nodes fleet
	for i := range n {
		one := &node{dir: filepath.Join(dir, fmt.Sprint("node-", i)), binary: right, environ: environ}
		if i > 0 {
			one.binary = wrong
			one.environ = append(one.environ[:len(environ):len(environ)], process.JumpsEnv+"="+skews[i%len(skews)])
		}
		if err := os.MkdirAll(one.dir, 0o700); err != nil {
			return nil, err
		}
		nodes = append(nodes, one)
	}
	return nodes, nil
}

// each runs f for every node at the same time.
func (f fleet) each(do func(*node) error) error {
	faults := make([]error, len(f))
	var all sync.WaitGroup
	for i, n := range f {
		all.Go(func() { faults[i] = do(n) })
	}
	all.Wait()
	return errors.Join(faults...)
}
