//go:build state && linux

package state

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
)

// project is who sends.
type project struct {
	name   string
	token  string
	quotas []events.Quota
	rates  []events.Rate
	// userRates are those of each user.
	userRates []events.Rate
	// fields is the project's record.
	fields map[string]string
}

// traffic sends events of projects to nodes and notes the answers. It is safe for concurrent use.
type traffic struct {
	fleet  fleet
	client *http.Client

	mu sync.Mutex
	// events are all that were sent. faults are answers that no request may get.
	events []sent
	faults []error
}

// answerTimeout is how long a client waits for an answer. The nodes answer much earlier.
const answerTimeout = time.Minute

func newTraffic(nodes fleet) *traffic {
	return &traffic{
		fleet:  nodes,
		client: &http.Client{Timeout: answerTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 32}},
	}
}

// names are the events' names by their resource.
var names = map[events.Resource]string{events.ResourceEvents: "signed up", events.ResourceExceptions: "$exception"}

// request is a batch of one project.
type request struct {
	project *project
	body    []byte
	events  []sent
}

func newRequest(p *project, n int, resource events.Resource) *request {
	r := &request{project: p, events: make([]sent, n)}
	var body bytes.Buffer
	created := time.Now().UTC().Format(time.RFC3339Nano)
	fmt.Fprintf(&body, `{"created_at":%q,"batch":[`, created)
	for i := range r.events {
		e := &r.events[i]
		e.id, e.token, e.resource, e.user = uuid.New(), p.token, resource, fmt.Sprint("user-", i%users)
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"event":%q,"uuid":%q,"distinct_id":%q,"timestamp":%q,"properties":{"n":%d}}`,
			names[resource], e.id, e.user, created, i)
	}
	body.WriteString(`]}`)
	r.body = body.Bytes()
	return r
}

// post sends the request to a node, and returns the status and the result of each event. An error means that there was
// no answer.
func (t *traffic) post(url string, r *request, attempt int) (status int, results map[string]result, err error) {
	post, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url+"/i/v1/analytics/events",
		bytes.NewReader(r.body))
	if err != nil {
		return 0, nil, err
	}
	for name, value := range map[string]string{
		"Authorization": "Bearer " + r.project.token, "Content-Type": "application/json",
		"PostHog-Sdk-Info": "state/1.0.0", "PostHog-Attempt": fmt.Sprint(attempt),
		"PostHog-Request-Id":        uuid.NewString(),
		"PostHog-Request-Timestamp": time.Now().UTC().Format(time.RFC3339Nano),
	} {
		post.Header.Set(name, value)
	}
	response, err := t.client.Do(post)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, nil, err
	}
	var told struct{ Results map[string]result }
	if response.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, &told); err != nil {
			t.fault(fmt.Errorf("the answer %q: %w", body, err))
		}
	} else if response.StatusCode < http.StatusInternalServerError {
		t.fault(fmt.Errorf("answered %d: %s", response.StatusCode, body))
	}
	return response.StatusCode, told.Results, nil
}

// result is the protocol's result of an event.
type result struct{ Result, Details string }

func (t *traffic) fault(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = append(t.faults, err)
}

// send sends a request to a node and notes what became of it. It returns how many events were accepted, and how many
// were over a limit.
func (t *traffic) send(n *node, r *request) (passed, refused int) {
	url, life := n.at()
	if url == "" {
		return 0, 0
	}
	from := time.Now()
	status, results, err := t.post(url, r, 1)
	to := time.Now()
	for i := range r.events {
		e := &r.events[i]
		e.from, e.to, e.node, e.life = from, to, n.dir, life
		switch told := results[e.id.String()]; {
		case err != nil:
			e.answer = unknown
		case status != http.StatusOK || told.Result == "retry":
			e.answer = failed
		case told.Result == "ok" || told.Result == "warning":
			e.answer = accepted
			passed++
		case told.Result == "drop" || told.Result == "limited":
			e.answer = limited
			refused++
		default:
			t.fault(fmt.Errorf("an event has the result %+v", told))
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, r.events...)
	return passed, refused
}

// again sends a request that was answered once more, to another node. Its events are no new ones.
func (t *traffic) again(n *node, r *request) {
	url := n.url()
	if url == "" {
		return
	}
	_, results, err := t.post(url, r, 2)
	if err != nil {
		return
	}
	for i := range r.events {
		told := results[r.events[i].id.String()]
		if r.events[i].answer == accepted && told.Result == "drop" {
			t.fault(fmt.Errorf("an event that was accepted has the result %+v when it is sent again", told))
		}
	}
}

// load is what workers send until stop.
type load struct {
	stop    atomic.Bool
	workers sync.WaitGroup
}

// The shape of the traffic.
const (
	workers     = 6
	largestSize = 50
	// users are the users of a project. The first of them sends most: all events that come alone.
	users = 7
	// onceMore is how many of the requests whose events are all safe are sent again.
	onceMore = 0.1
)

// run starts workers that send batches of random sizes of random projects to random nodes, with random pauses.
func (t *traffic) run(seed uint64, projects []*project) *load {
	l := new(load)
	for worker := range workers {
		random := rand.New(rand.NewPCG(seed, uint64(worker)))
		l.workers.Go(func() {
			for !l.stop.Load() {
				t.step(random, projects)
				pause := time.NewTimer(time.Duration(random.ExpFloat64() * float64(4*time.Millisecond)))
				<-pause.C
			}
		})
	}
	return l
}

func (t *traffic) step(random *rand.Rand, projects []*project) {
	p := projects[random.IntN(len(projects))]
	size, resource := 1, events.ResourceEvents
	if random.IntN(2) == 0 {
		size = 1 + random.IntN(largestSize)
	}
	if random.IntN(4) == 0 {
		resource = events.ResourceExceptions
	}
	r := newRequest(p, size, resource)
	passed, _ := t.send(t.fleet[random.IntN(len(t.fleet))], r)
	if passed == size && random.Float64() < onceMore {
		t.again(t.fleet[random.IntN(len(t.fleet))], r)
	}
}

// end ends the load.
func (l *load) end() {
	l.stop.Store(true)
	l.workers.Wait()
}

// flood sends events of a project's users to each of the nodes in turn, until one of them has limited some.
func (t *traffic) flood(nodes fleet, p *project, resource events.Resource) {
	const patience = 5 * time.Minute
	for began := time.Now(); time.Since(began) < patience; {
		for _, n := range nodes {
			r := newRequest(p, largestSize, resource)
			t.send(n, r)
			if slices.ContainsFunc(r.events, func(e sent) bool { return e.answer == limited }) {
				return
			}
		}
	}
	t.fault(fmt.Errorf("no user of %s is limited", p.name))
}

// spend sends events of a project to each of the nodes in turn, in batches while these pass and then one by one. It
// returns when nothing has passed for long enough and then each node has refused an event because of the limit: then
// nobody holds anything of the quota any more. An event that fails says nothing about the limit.
func (t *traffic) spend(nodes fleet, p *project, resource events.Resource) {
	const (
		quiet    = 3 * time.Second
		patience = 5 * time.Minute
	)
	began, last, size := time.Now(), time.Now(), largestSize
	done := map[*node]bool{}
	for len(done) < len(nodes) {
		if time.Since(began) > patience {
			t.fault(fmt.Errorf("after %s events of %s still pass, or fail", patience, p.name))
			return
		}
		spent := true
		for _, n := range nodes {
			late := time.Since(last) >= quiet
			passed, refused := t.send(n, newRequest(p, size, resource))
			switch {
			case passed > 0:
				spent, last = false, time.Now()
				clear(done)
			case late && refused == size:
				done[n] = true
			}
		}
		if spent {
			size = 1
			pause := time.NewTimer(time.Millisecond)
			<-pause.C
		}
	}
}
