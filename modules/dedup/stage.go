package dedup

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/store"
)

// Stage is the stage that finds duplicates. Start and Stop are each called once, Start first. Process and the Settle
// that it returns are safe for concurrent use at any time.
type Stage struct {
	config   *configs.Value[Config]
	reserver store.Reserver
	metrics  metrics
	causes   *observability.Causes // why the store did not answer
	keeper   keeper
	works    sync.Pool
	waiting  waiting

	stopping context.Context // over when the service stops
	stop     context.CancelFunc
	group    *panics.Group
}

var _ events.Stage = (*Stage)(nil)

// NewStage returns the stage of the section, which keeps what it has to remember with the reserver.
func NewStage(live *configs.Live, reserver store.Reserver, log *zap.Logger, scope tally.Scope) (*Stage, error) {
	config, err := configs.Current[Config](live)
	if err != nil {
		return nil, err
	}
	s := &Stage{
		config: config, reserver: reserver, metrics: newMetrics(scope), group: panics.NewGroup(log),
		causes: observability.NewCauses(log, "duplicates cannot be found", "duplicates are found again", time.Minute),
	}
	s.waiting.gauge = scope.Gauge("waiting")
	s.keeper.reserver, s.keeper.metrics = reserver, &s.metrics
	s.works.New = func() any {
		w := &work{stage: s, hasher: newHasher()}
		w.settle = func(_ context.Context, batch *events.Batch) { w.finish(batch) }
		return w
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// Phase is events.PhaseDedup.
func (s *Stage) Phase() events.Phase { return events.PhaseDedup }

// Name is "dedup".
func (s *Stage) Name() string { return "dedup" }

// Start begins to keep the reservations of requests that take long.
func (s *Stage) Start(context.Context) error {
	s.group.Keep(s.stopping, "the keeper of reservations", func(ctx context.Context) {
		s.keeper.run(ctx, func() time.Duration { return s.config.Now().Lease })
	})
	return nil
}

// Stop ends every wait for another request.
func (s *Stage) Stop(context.Context) error {
	s.stop()
	s.group.Wait()
	return nil
}

// User tells the store whether events fail without it.
func (s *Stage) User() store.User {
	return store.User{Name: s.Name(), Closed: func() bool {
		config := s.config.Now()
		return config.Window > 0 && config.isClosed()
	}}
}

// Process ends the events that are known as duplicates, and reserves the others. It returns no error: without the
// store, on_store_failure decides.
func (s *Stage) Process(ctx context.Context, batch *events.Batch) (events.Settle, error) {
	config := s.config.In(batch.Config)
	if config.Window == 0 || batch.Token == "" {
		return nil, nil
	}
	w := s.works.Get().(*work)
	w.token, w.lease, w.window, w.owner = batch.Token, config.Lease, config.Window, store.Owner(rand.Uint64())
	if n := w.identify(batch, config.Identity == identityTriple); n > 0 {
		s.metrics.unidentified.Inc(int64(n))
	}
	if len(w.digests) == 0 {
		w.free()
		return nil, nil
	}
	settled := false
	defer func() {
		if !settled { // a panic: nobody will settle, and the reservations are to end by themselves
			s.keeper.drop(w)
		}
	}()
	w.prepare()
	err := s.reserver.Reserve(ctx, w.token, w.owner, w.digests, w.lease, w.claims)
	s.causes.Log(err)
	if err != nil {
		s.pass(w, batch, config)
	} else {
		s.keeper.add(w, time.Now())
		if w.countBusy() > 0 {
			s.wait(ctx, w, config)
		}
		s.apply(w, batch)
	}
	settled = true
	return w.settle, nil
}

var (
	errInFlight = events.Errorf(events.Unavailable, "another request with the same event has not ended yet")
	errStore    = events.Errorf(events.Unavailable,
		"the store does not answer, and dedup.on_store_failure is closed")
)

// pass is what becomes of the events without the store. Some of them may be reserved, so all of them are settled as if
// they were.
func (s *Stage) pass(w *work, batch *events.Batch, config Config) {
	for i := range w.claims {
		w.claims[i] = store.Reserved
	}
	if !config.isClosed() {
		s.metrics.admissions.Inc(int64(s.apply(w, batch)))
		return
	}
	n := 0
	for i := range batch.Events {
		if event := &batch.Events[i]; event.Pending() && w.has(event.Identity) {
			event.Fail(events.ReasonStore, errStore)
			n++
		}
	}
	s.metrics.refused.Inc(int64(n))
}

// apply ends the events that are not to go on. It returns how many go on.
func (s *Stage) apply(w *work, batch *events.Batch) (passed int) {
	clear(w.counts)
	duplicates, inFlight := 0, 0
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() || !w.has(event.Identity) {
			continue
		}
		index := event.Identity - 1
		switch w.claims[index] {
		case store.Done:
			event.AcceptDuplicate()
			duplicates++
		case store.Busy:
			event.Fail(events.ReasonInFlight, errInFlight)
			inFlight++
		default:
			if w.counts[index] > 0 {
				batch.AcceptTwin(event)
				duplicates++
				continue
			}
			w.counts[index]++
			passed++
		}
	}
	if duplicates > 0 {
		s.metrics.duplicates.Inc(int64(duplicates))
	}
	if inFlight > 0 {
		s.metrics.inFlight.Inc(int64(inFlight))
	}
	return passed
}

const (
	// firstPause and lastPause are the pauses between two looks at what another request has reserved.
	firstPause = 2 * time.Millisecond
	lastPause  = 100 * time.Millisecond
)

// wait waits for the requests that have reserved some of the digests. It returns when their end is known, when the time
// for that is over, when the client has left or when the service stops.
func (s *Stage) wait(ctx context.Context, w *work, config Config) {
	if config.Wait == 0 {
		return
	}
	if !s.waiting.enter(config.MaxWaiting) {
		return
	}
	defer s.waiting.leave()
	s.metrics.waits.Inc(1)
	began := time.Now()
	defer func() { s.metrics.wait.Record(time.Since(began)) }()
	timer := time.NewTimer(firstPause)
	defer timer.Stop()
	for pause := firstPause; ; {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		case <-s.stopping.Done():
			return
		}
		left := config.Wait - time.Since(began)
		if !s.look(ctx, w) || left <= 0 {
			return
		}
		pause = min(2*pause, lastPause)
		timer.Reset(min(pause, left))
	}
}

// waiting counts the requests that wait.
type waiting struct {
	gauge tally.Gauge

	mu sync.Mutex
	n  int
}

// enter counts a request in, unless most are in already.
func (w *waiting) enter(most int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n >= most {
		return false
	}
	w.n++
	w.gauge.Update(float64(w.n))
	return true
}

func (w *waiting) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n--
	w.gauge.Update(float64(w.n))
}

// look reserves again what was busy, and reports whether some of it still is. If the store does not answer, all of it
// stays busy: it is known that another request is handling these events.
func (s *Stage) look(ctx context.Context, w *work) (busy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy, w.again = w.busy[:0], w.again[:0]
	for i, claim := range w.claims {
		if claim == store.Busy {
			w.busy = append(w.busy, i)
			w.again = append(w.again, w.digests[i])
		}
	}
	w.found = growClaims(w.found, len(w.again))
	err := s.reserver.Reserve(ctx, w.token, w.owner, w.again, w.lease, w.found)
	s.causes.Log(err)
	if err != nil {
		return true
	}
	for i, index := range w.busy {
		w.claims[index] = w.found[i]
		busy = busy || w.found[i] == store.Busy
	}
	return busy
}

// growClaims returns room for n claims, in the room of the given ones if it is enough.
func growClaims(claims []store.Claim, n int) []store.Claim {
	claims = slices.Grow(claims[:0], n)[:n]
	clear(claims)
	return claims
}
