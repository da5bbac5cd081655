package routing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/restriction"
	"github.com/opencapture/capture/modules/store"
)

// state is how the rules of the shared store stand.
type state uint8

const (
	// unread: the node has not read any since its start.
	unread state = iota
	// current: the store answers.
	current
	// stale: the store has not answered for routing.rules_stale_after. The rules stay in force.
	stale
	// ignored: the same, and the rules are not in force.
	ignored
	stateCount
)

var stateNames = [stateCount]string{"unread", "current", "stale", "ignored"}

func (s state) String() string { return stateNames[s] }

const (
	// maxRules and maxRuleBytes are how many rules of a source are in force, and how long their texts are together.
	maxRules, maxRuleBytes = 50_000, 8 << 20
	// maxChanged is how many changed rules are read one by one. If more have changed, all are read.
	maxChanged = 1000
	// retryAfter is how long a read that failed is not tried again.
	retryAfter = time.Second
	// leisure is how much longer the pause between two readings of all rules is than a reading takes: to find the
	// rules, Redis looks through all that it has.
	leisure = 50
	// calm is the same for readings after the connection to the store was lost.
	calm = 4
	// gather is how long notices are gathered before they are followed.
	gather = 20 * time.Millisecond
	// shortest is the shortest pause.
	shortest = 10 * time.Millisecond
	// readTime is how long a reading of all rules may take.
	readTime = time.Minute
)

// records reads the rules of the shared store. The store tells of what the service itself has written. All rules are
// read now and then, because nobody tells of one that was written by hand.
type records struct {
	stage  *Stage
	store  store.Store
	causes *observability.Causes
	woken  chan struct{}

	mu      sync.Mutex
	changed map[string]struct{} // the names of rules that may have changed
	all     bool                // any rule may have changed

	// The rest belongs to the one goroutine that reads.
	rules  map[string]*rule // the sound ones, by their names
	faulty map[string]error // the others
	sizes  map[string]int   // how long their texts are
	size   int
	read   time.Time // when all rules were last read
	took   time.Duration
	answer time.Time // when the store last answered
	retry  time.Time // when to try again what has failed; zero: nothing has
	next   time.Time // when the next rule expires; zero: none does
	dirty  bool      // the index is not what the rules are
	broken broken

	status atomic.Pointer[SourceStatus]
}

func newRecords(from store.Store, stage *Stage) *records {
	r := &records{
		stage: stage, store: from, woken: make(chan struct{}, 1), all: true, changed: map[string]struct{}{},
		rules: map[string]*rule{}, faulty: map[string]error{}, sizes: map[string]int{},
		causes: observability.NewCauses(stage.log, "the rules of the shared state cannot be read",
			"the rules of the shared state are read again", time.Minute),
	}
	r.status.Store(&SourceStatus{Source: fromStore.String(), State: unread.String()})
	from.Watch(restriction.Kind, r.notice)
	return r
}

// notice is told of a rule that may have changed, or of all by an empty name. It does not block.
func (r *records) notice(name string) {
	r.mu.Lock()
	if name == "" || len(r.changed) >= maxChanged {
		r.all = true
	} else {
		r.changed[name] = struct{}{}
	}
	r.mu.Unlock()
	r.wake()
}

func (r *records) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// take returns what may have changed since the last call.
func (r *records) take() (names []string, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, names = r.all, slices.Sorted(maps.Keys(r.changed))
	r.all = false
	clear(r.changed)
	return names, all
}

// giveBack notes what could not be read.
func (r *records) giveBack(names []string, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = r.all || all
	for _, name := range names {
		r.changed[name] = struct{}{}
	}
}

// keep reads rules until ctx is over.
func (r *records) keep(ctx context.Context) {
	r.dirty = true // after a panic, nobody knows
	timer := time.NewTimer(r.pause())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.woken:
			r.dirty = true // the configuration may have changed
			timer.Reset(gather)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		case <-timer.C:
		}
		r.step(ctx)
		timer.Reset(r.pause())
	}
}

// refreshAt is when all rules are due to be read.
func (r *records) refreshAt() time.Time {
	return r.read.Add(max(r.stage.policy.Now().RulesRefresh, leisure*r.took))
}

// calmAt is when all rules may be read again although they are not due, because the store cannot tell which of them
// have changed.
func (r *records) calmAt() time.Time {
	if r.read.IsZero() {
		return time.Time{}
	}
	return r.read.Add(max(time.Second, calm*r.took))
}

// pause returns how long there is nothing to do.
func (r *records) pause() time.Duration {
	config := r.stage.policy.Now()
	next := r.answer.Add(config.RulesRefresh)
	if !r.retry.IsZero() {
		next = r.retry
	}
	soon := []time.Time{r.refreshAt(), r.answer.Add(config.RulesStaleAfter)}
	r.mu.Lock()
	if r.all {
		soon = append(soon, r.calmAt())
	}
	r.mu.Unlock()
	for _, at := range soon {
		if at.Before(next) && at.After(time.Now()) {
			next = at
		}
	}
	pause := time.Until(next)
	if !r.next.IsZero() {
		pause = min(pause, r.next.Sub(r.store.Now()))
	}
	return max(pause, shortest)
}

// step reads what is due, and puts what has changed in force.
func (r *records) step(ctx context.Context) {
	names, all := r.take()
	now := time.Now()
	if all && now.Before(r.calmAt()) {
		r.giveBack(nil, true)
		all = false
	}
	all = all || !now.Before(r.refreshAt())
	err := error(nil)
	switch {
	case all:
		err = r.readAll(ctx)
	case len(names) > 0:
		err = r.readEach(ctx, names)
	case !now.Before(r.answer.Add(r.stage.policy.Now().RulesRefresh)) || !r.retry.IsZero():
		// Notices come from a store that answers. This asks whether it does.
		_, err = r.store.Get(ctx, restriction.Kind, heartbeat)
	default:
		r.publish()
		return
	}
	r.causes.Log(err)
	if err != nil {
		r.giveBack(names, all)
		r.stage.metrics.failures[fromStore].Inc(1)
		r.retry = time.Now().Add(retryAfter)
	} else {
		r.answer, r.retry = time.Now(), time.Time{}
	}
	r.publish()
	r.report(err)
}

// heartbeat is the name of a record that need not exist.
const heartbeat = "heartbeat"

// readAll reads every rule. If it fails, the rules stay as they were.
func (r *records) readAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	began := time.Now()
	names, err := r.store.List(ctx, restriction.Kind, "", maxRules+1)
	if err != nil {
		return fmt.Errorf("list the rules: %w", err)
	}
	gone := maps.Clone(r.sizes)
	for _, name := range names {
		if err := r.readOne(ctx, name); err != nil {
			return err
		}
		delete(gone, name)
	}
	// What the store did not list is looked up once more: a rule may have been written meanwhile.
	for name := range gone {
		if err := r.readOne(ctx, name); err != nil {
			return err
		}
	}
	r.read, r.took = time.Now(), time.Since(began)
	return nil
}

func (r *records) readEach(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := r.readOne(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

var errNoRoom = fmt.Errorf("there is no room for it: the rules in force may be %d, of %d MiB together", maxRules,
	maxRuleBytes>>20)

// readOne reads a rule.
func (r *records) readOne(ctx context.Context, name string) error {
	fields, err := r.store.Get(ctx, restriction.Kind, name)
	if err != nil {
		if errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
			return fmt.Errorf("read the rule %q: %w", name, err)
		}
		r.refuse(name, err) // such as a key that is no hash
		return nil
	}
	r.size -= r.sizes[name]
	delete(r.sizes, name)
	if len(fields) == 0 {
		r.dirty = r.dirty || r.rules[name] != nil || r.faulty[name] != nil
		delete(r.rules, name)
		delete(r.faulty, name)
		return nil
	}
	of, err := restriction.Parse(fields)
	err = cmp.Or(restriction.CheckName(name), err)
	size := len(name)
	for field, value := range fields {
		size += len(field) + len(value)
	}
	if err == nil && (r.size+size > maxRuleBytes || len(r.rules) >= maxRules && r.rules[name] == nil) {
		err = errNoRoom
	}
	if err != nil {
		r.refuse(name, err)
		return nil
	}
	r.size += size
	r.sizes[name] = size
	delete(r.faulty, name)
	if before := r.rules[name]; before == nil || !reflect.DeepEqual(before.Rule, of) {
		r.rules[name] = newRule(fromStore, name, of, 0)
		r.dirty = true
	}
	return nil
}

// refuse notes that a rule has faults.
func (r *records) refuse(name string, err error) {
	r.dirty = r.dirty || r.rules[name] != nil || r.faulty[name] == nil || r.faulty[name].Error() != err.Error()
	r.size -= r.sizes[name]
	r.sizes[name] = 0 // so that it is known when the rule is gone
	delete(r.rules, name)
	r.faulty[name] = err
}

// state returns how the rules stand.
func (r *records) state() state {
	config := r.stage.policy.Now()
	switch {
	case r.read.IsZero():
		return unread
	case time.Since(r.answer) < config.RulesStaleAfter:
		return current
	case config.isClosed():
		return stale
	default:
		return ignored
	}
}

// publish puts the rules in force if they or their state have changed.
func (r *records) publish() {
	state, now := r.state(), r.store.Now()
	expired := !r.next.IsZero() && !now.Before(r.next)
	if !r.dirty && !expired && r.stage.shared.Load().state == state {
		return
	}
	r.dirty, r.next = false, time.Time{}
	r.broken.faults = nil
	for name, fault := range r.faulty {
		r.broken.add(fromStore.String()+"/"+name, fault)
	}
	var inForce []*rule
	for i, name := range slices.Sorted(maps.Keys(r.rules)) {
		of := r.rules[name]
		if !of.Expires.IsZero() {
			if !now.Before(of.Expires) {
				continue
			}
			if r.next.IsZero() || of.Expires.Before(r.next) {
				r.next = of.Expires
			}
		}
		if err := r.stage.checkTopic(&of.Rule); err != nil {
			r.broken.add(of.id, err)
			continue
		}
		// The rule may be in the index that is in force, so its rank is that of a copy.
		ranked := *of
		ranked.rank += fieldsOf(&of.Rule)*rankOfField + int64(i)
		inForce = append(inForce, &ranked)
	}
	if state == ignored {
		inForce = nil
	}
	r.broken.tell(r.stage.log)
	index := newIndex(inForce)
	r.stage.publish(func(s *shared) { s.store, s.state = index, state })
	r.stage.metrics.rules[fromStore].Update(float64(index.size))
	r.stage.metrics.broken[fromStore].Update(float64(len(r.broken.faults)))
	r.stage.metrics.stale[fromStore].Update(oneIf(state != current))
	r.report(nil)
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// report notes how the rules stand, for people. err is how the last attempt to read them has ended.
func (r *records) report(err error) {
	shared := r.stage.shared.Load()
	status := &SourceStatus{
		Source: fromStore.String(), State: shared.state.String(), Rules: shared.store.size,
		Tokens: len(shared.store.projects), BrokenRules: len(r.broken.faults), Broken: r.broken.list(),
	}
	if !r.answer.IsZero() {
		at := r.answer.UTC()
		status.AnsweredAt = &at
	}
	if err != nil {
		status.Error = err.Error()
	}
	r.status.Store(status)
}
