package dedup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/events"
)

// What happens to an event in a write to the topic of a storm.
type fault int

const (
	// stored: the topic has the event, and the sink says so.
	stored fault = iota
	// refused: the topic does not have the event, and the sink says so.
	refused
	// dropped: a policy does not keep the event this time.
	dropped
	// lost: the sink does not know, and tells many leases later that the topic does not get the event.
	lost
	// late: the sink does not know; the topic gets the event many leases later, and the sink tells that.
	late
	// untold: the sink does not know and never will; the topic gets the event within a lease.
	untold
	// panicked: the node panics before the event is in the topic.
	panicked
	faultCount
)

// storm is a plan for clients that send the same events to several nodes, each until it has an answer that the event
// is safe.
type storm struct {
	nodes int
	// clients are the events that each client sends, in each attempt.
	clients [][]int
	// faults take turns over all writes of an event.
	faults []fault
	// write is how long a write takes, and patience when a client hangs up and tries again.
	write, patience []time.Duration
	seed            uint64
}

func drawStorm(t *rapid.T) storm {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	return storm{
		nodes:   rapid.IntRange(1, 3).Draw(t, "nodes"),
		clients: rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 7), 1, 6), 2, 8).Draw(t, "clients"),
		faults: rapid.SliceOfN(rapid.Map(rapid.IntRange(0, int(faultCount)-1), func(n int) fault { return fault(n) }),
			1, 12).Draw(t, "faults"),
		write:    rapid.SliceOfN(rapid.Map(rapid.IntRange(0, 5000), ms), 1, 5).Draw(t, "write"),
		patience: rapid.SliceOfN(rapid.Map(rapid.IntRange(50, 4000), ms), 1, 5).Draw(t, "patience"),
		seed:     rapid.Uint64().Draw(t, "seed"),
	}
}

// manyLeases is how late a sink tells how an event has ended.
const manyLeases = 20 * time.Second

// gale is the topic of a storm.
type gale struct {
	storm
	mu sync.Mutex
	// writes counts the writes of events so far, copies how often the topic has each event.
	writes int
	copies map[string]int
	// certain counts the copies whose write told so.
	certain    map[string]int
	background sync.WaitGroup
}

func (g *gale) next() (fault, time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes++
	// In the end everything works, so that a storm ends.
	if g.writes > 40 {
		return stored, 0
	}
	return g.faults[g.writes%len(g.faults)], g.write[g.writes%len(g.write)]
}

func (g *gale) keep(name string, certain bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.copies[name]++
	if certain {
		g.certain[name]++
	}
}

func (g *gale) Write(ctx context.Context, batch *events.Batch) {
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		fault, takes := g.next()
		name := event.Name
		time.Sleep(takes)
		switch fault {
		case stored:
			g.keep(name, true)
			event.Accept()
		case refused:
			event.Fail(events.ReasonUnavailable, events.Errorf(events.Unavailable, "refused"))
		case dropped:
			event.Drop(events.ReasonQuota)
		case late, lost:
			end := &events.Late{}
			end.Await()
			g.background.Go(func() {
				time.Sleep(manyLeases)
				if fault == late {
					g.keep(name, true)
				}
				end.Report(fault == late)
			})
			event.FailLate(end, events.Errorf(events.Unavailable, "late"))
		case untold:
			g.background.Go(func() {
				time.Sleep(DefaultConfig().Lease / 2)
				g.keep(name, false)
			})
			event.Fail(events.ReasonTimeout, events.Errorf(events.Unavailable, "untold"))
		default:
			panic("the node falls over")
		}
	}
}

// client sends its events to the nodes until it has an answer to each.
type client struct {
	*gale
	nodes    []*node
	patience time.Duration
	random   *rand.Rand
	left     []int
}

// heard are the answers of all clients.
type heard struct {
	mu sync.Mutex
	// safe are the events of which a client heard that they are safe, unwanted those that were dropped.
	safe, unwanted map[string]bool
}

func (c *client) run(heard *heard) {
	for len(c.left) > 0 {
		if batch := c.attempt(); batch != nil {
			c.left = heard.note(batch)
		}
		time.Sleep(time.Duration(c.random.IntN(2000)) * time.Millisecond)
	}
}

// attempt sends the events to one of the nodes. It returns nil if the client has hung up before the answer: the request
// goes on all the same.
func (c *client) attempt() *events.Batch {
	batch := &events.Batch{Token: "phc_a"}
	for _, number := range c.left {
		batch.Events = append(batch.Events, event(fmt.Sprint(number)))
	}
	ctx, hangUp := context.WithCancel(context.Background())
	defer hangUp()
	answered := make(chan struct{})
	to := c.nodes[c.random.IntN(len(c.nodes))]
	c.background.Go(func() {
		to.Process(ctx, batch)
		close(answered)
	})
	patience := time.NewTimer(c.patience)
	defer patience.Stop()
	select {
	case <-answered:
		return batch
	case <-patience.C:
		return nil
	}
}

// note notes the answers to a request. It returns the events that are to be sent again.
func (h *heard) note(batch *events.Batch) (again []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range batch.Events {
		switch event := &batch.Events[i]; event.Outcome.State {
		case events.StateAccepted:
			h.safe[event.Name] = true
		case events.StateDropped:
			h.unwanted[event.Name] = true
		default:
			number, _ := strconv.Atoi(event.Name)
			again = append(again, number)
		}
	}
	return again
}

// rage plays the storm and returns what is wrong with its end, or "".
func (p storm) rage(t *testing.T) (fault string) {
	shared := newStore(t)
	topic := &gale{storm: p, copies: map[string]int{}, certain: map[string]int{}}
	nodes := make([]*node, p.nodes)
	for i := range nodes {
		nodes[i] = newNode(t, shared, topic, DefaultConfig())
	}
	heard := &heard{safe: map[string]bool{}, unwanted: map[string]bool{}}
	var clients sync.WaitGroup
	for number, left := range p.clients {
		c := client{
			gale: topic, nodes: nodes, left: slices.Clone(left), patience: p.patience[number%len(p.patience)],
			random: rand.New(rand.NewPCG(p.seed, uint64(number))),
		}
		clients.Go(func() { c.run(heard) })
	}
	clients.Wait()
	topic.background.Wait()
	for _, number := range slices.Concat(p.clients...) {
		name := strconv.Itoa(number)
		switch {
		case heard.safe[name] && topic.copies[name] == 0:
			return fmt.Sprintf("event %s was said to be safe, and is lost", name)
		case topic.certain[name] > 1:
			return fmt.Sprintf("event %s was stored %d times", name, topic.certain[name])
		case !heard.safe[name] && !heard.unwanted[name]:
			return fmt.Sprintf("nobody was told of event %s", name)
		}
	}
	return ""
}

// Clients send the same events at the same time, to several nodes, hang up and send again. Writes fail, are slow, end
// unknown, or panic. In the end every event of which a client heard that it is safe is in the topic, and it is there
// once: a second copy comes only from a write that has timed out, of which nobody ever knew whether it was stored.
func TestAStormOfRetriesStoresEveryEventOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plan, fault := drawStorm(rt), ""
		synctest.Test(t, func(t *testing.T) { fault = plan.rage(t) })
		if fault != "" {
			rt.Fatalf("%s: %+v", fault, plan)
		}
	})
}
