package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/project"
)

// verdict is what the directory says of a token.
type verdict uint8

const (
	// isKnown: the token belongs to a project. isUnknown: it belongs to none.
	isKnown verdict = iota
	isUnknown
	// isUnsure: nobody can say at present. isUnasked: nobody was asked, since too many invented tokens come in.
	isUnsure
	isUnasked
	verdicts
)

var verdictNames = [verdicts]string{"known", "unknown", "unsure", "unasked"}

// directory knows whom tokens belong to. It asks the authenticators, and remembers what they say.
type directory struct {
	authenticators []Authenticator
	terms          *configs.Value[*terms]
	log            *zap.Logger
	metrics        *metrics
	began          time.Time

	known   *lru.Cache[string, *entry]
	unknown *absences
	flights singleflight.Group
	lookups *lookups

	// changes counts the changes of records that the node was told of. What was asked before a change and answered
	// after it may be old.
	changes atomic.Uint64
	// epoch counts the times when any record may have changed.
	epoch atomic.Uint64
	// due has the entries that are to be looked up again in the background.
	due chan *entry

	// edition counts the changes of what is known, for the replica.
	edition atomic.Uint64
	broken  brokenRecords
}

// entry is a project that an authenticator knows.
type entry struct {
	token string
	*known
	// due is when the entry is to be looked up again, and expires when it is not used any more before that was tried.
	// Both are times of directory.now.
	due, expires atomic.Int64
	epoch        atomic.Uint64
	refreshing   atomic.Bool
}

const (
	// maxDue is how many entries may wait to be looked up again. The others stay due.
	maxDue = 4096
	// refreshers is how many of them are looked up at once.
	refreshers = 4
	// retryAfter is how long a lookup that failed is not repeated for a project whose last record is good.
	retryAfter = time.Second
	// earliest and latest are the parts of a TTL, in percent, between which an entry becomes due. They differ from
	// entry to entry, so that what was looked up together is not looked up together again.
	earliest, latest = 60, 80
)

func newDirectory(
	authenticators []Authenticator, terms *configs.Value[*terms], log *zap.Logger, metrics *metrics,
) (*directory, error) {
	section := terms.Now().Config
	ordered := slices.Clone(authenticators)
	slices.SortFunc(ordered, func(a, b Authenticator) int {
		return cmp.Or(cmp.Compare(a.Rank(), b.Rank()), cmp.Compare(a.Name(), b.Name()))
	})
	for i := 1; i < len(ordered); i++ {
		if ordered[i].Name() == ordered[i-1].Name() {
			return nil, fmt.Errorf("two authenticators are named %q: rename one or leave it out", ordered[i].Name())
		}
	}
	cache, err := lru.New[string, *entry](section.MaxProjects)
	if err != nil {
		return nil, err
	}
	return &directory{
		authenticators: ordered, terms: terms, log: log, metrics: metrics, began: time.Now(),
		known: cache, unknown: newAbsences(), lookups: newLookups(section.MaxLookups), due: make(chan *entry, maxDue),
	}, nil
}

// now is the time since the directory was made. A change of the system's clock does not change it.
func (d *directory) now() int64 { return int64(time.Since(d.began)) }

// find says whom a token belongs to. client is the address of who shows the token. find waits for at most one lookup.
func (d *directory) find(token, client string, t *terms) (*known, verdict) {
	if known := t.files[token]; known != nil {
		return known, isKnown
	}
	now := d.now()
	if e, found := d.known.Get(token); found {
		if now < e.expires.Load() {
			if now >= e.due.Load() || e.epoch.Load() != d.epoch.Load() {
				d.refresh(e)
			}
			return e.known, isKnown
		}
		return d.lookup(token, t)
	}
	switch {
	case d.unknown.has(token, now):
		return nil, isUnknown
	case !d.lookups.allow(client):
		return nil, isUnasked
	}
	return d.lookup(token, t)
}

// isUnknown reports whether the directory remembers the token as one of no project. It asks nobody.
func (d *directory) isUnknown(token string, t *terms) bool {
	return t.files[token] == nil && d.unknown.has(token, d.now())
}

// refresh has the entry looked up in the background.
func (d *directory) refresh(e *entry) {
	if !e.refreshing.CompareAndSwap(false, true) {
		return
	}
	select {
	case d.due <- e:
	default:
		e.refreshing.Store(false)
	}
}

// work looks up due entries until ctx is over.
func (d *directory) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-d.due:
			d.lookup(e.token, d.terms.Now())
			e.refreshing.Store(false)
		}
	}
}

// lookup asks the authenticators. Lookups of one token at the same time are one.
func (d *directory) lookup(token string, t *terms) (*known, verdict) {
	token = strings.Clone(token)
	found, _, _ := d.flights.Do(token, func() (any, error) {
		result := answer{verdict: isUnsure}
		panics.Do(d.log, "the lookup of a project", func() { result.known, result.verdict = d.ask(token, t) })
		return result, nil
	})
	result := found.(answer)
	return result.known, result.verdict
}

// answer is what a lookup has found.
type answer struct {
	known   *known
	verdict verdict
}

// ask asks the authenticators, and remembers the answer.
func (d *directory) ask(token string, t *terms) (*known, verdict) {
	changes, epoch := d.changes.Load(), d.epoch.Load()
	last, _ := d.known.Peek(token)
	found, sure, err := d.authenticate(token, last, t.Timeout)
	now := d.now()
	var faults *configs.FaultsError
	isBroken := errors.As(err, &faults)
	if isBroken {
		d.metrics.lookups[lookupBroken].Inc(1)
		d.tellBroken(token, faults, last != nil)
	} else if err == nil {
		d.broken.remove(token)
	}
	switch {
	case found != nil:
		d.metrics.lookups[lookupFound].Inc(1)
		d.keep(token, found, sure, changes, epoch, now, t)
		return found, isKnown
	case err != nil && last != nil:
		// The last good record stays in force. Requests go on with it while the next attempt is under way.
		again := now + int64(retryAfter)
		if isBroken {
			again = now + int64(t.TTL)
		} else {
			d.metrics.lookups[lookupFailed].Inc(1)
		}
		last.epoch.Store(epoch)
		last.due.Store(again)
		last.expires.Store(again + int64(t.TTL))
		if d.changes.Load() != changes {
			last.due.Store(0)
		}
		return last.known, isKnown
	case err != nil && !isBroken:
		d.metrics.lookups[lookupFailed].Inc(1)
		return nil, isUnsure
	}
	if !isBroken {
		d.metrics.lookups[lookupUnknown].Inc(1)
	}
	if d.known.Remove(token) {
		d.edition.Add(1)
	}
	d.unknown.add(token, now+int64(t.UnknownTTL))
	if d.changes.Load() != changes { // after it was added: a change that comes now finds it
		d.unknown.remove(token)
	}
	return nil, isUnknown
}

// authenticate returns the project of a token. If it returns nil and no error, the token belongs to no project. sure is
// unset if an authenticator has failed that goes before the one that knows the token. An authenticator whose record is
// broken is the last one to be asked: it knows the token. So is one that fails and that the last record is from, if
// there is a last record: what those behind it know is no substitute.
func (d *directory) authenticate(
	token string, last *entry, timeout time.Duration,
) (found *known, sure bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for _, authenticator := range d.authenticators {
		record, fault := authenticator.Project(ctx, token)
		var faults *configs.FaultsError
		switch {
		case errors.As(fault, &faults):
			return nil, false, fault
		case fault != nil:
			err = cmp.Or(err, fault)
			if last != nil && last.from == authenticator.Name() {
				return nil, false, err
			}
		case record != nil:
			return newKnown(*record, authenticator.Name()), err == nil, nil
		}
	}
	return nil, false, err
}

// keep remembers a project. changes and epoch are those of the time when it was asked for.
func (d *directory) keep(token string, found *known, sure bool, changes, epoch uint64, now int64, t *terms) {
	e := &entry{token: token, known: found}
	ttl := int64(t.TTL)
	e.epoch.Store(epoch)
	e.expires.Store(now + ttl)
	e.due.Store(now + ttl*(earliest+rand.Int64N(latest-earliest))/100)
	if !sure {
		e.due.Store(now + int64(retryAfter))
	}
	if last, had := d.known.Peek(token); !had || !last.same(found) {
		d.edition.Add(1)
	}
	d.unknown.remove(token)
	d.known.Add(token, e)
	if d.changes.Load() != changes { // after it was added: a change that comes now finds it
		e.due.Store(0)
	}
}

// same reports whether both are known alike.
func (k *known) same(other *known) bool {
	if k.from != other.from {
		return false
	}
	a, b := k.record.Fields(), other.record.Fields()
	if len(a) != len(b) {
		return false
	}
	for name, value := range a {
		if b[name] != value {
			return false
		}
	}
	return true
}

// changed is told that a record has changed; an empty token says that any may have. It does not block.
func (d *directory) changed(token string) {
	d.changes.Add(1)
	if token == "" {
		d.epoch.Add(1)
		d.unknown.clear()
		return
	}
	d.unknown.remove(token)
	if e, found := d.known.Peek(token); found {
		e.due.Store(0)
		d.refresh(e)
	}
}

// tellBroken notes that a record has faults, and logs it if it is not noted with these faults yet.
func (d *directory) tellBroken(token string, faults *configs.FaultsError, keeps bool) {
	if !d.broken.add(token, faults.Error(), keeps) {
		return
	}
	consequence := "its token counts as one of no project"
	if keeps {
		consequence = "the last good record stays in force"
	}
	d.log.Warn("the record of a project has faults: "+consequence, zap.String("kind", project.Kind),
		zap.String("token", token), zap.String("faults", faults.Error()))
}

// maxBroken is how many broken records are told of.
const maxBroken = 100

// brokenRecord is a record with faults, as an operator sees it.
type brokenRecord struct {
	Token  string    `json:"token"`
	Faults string    `json:"faults"`
	Since  time.Time `json:"since"`
	// LastGood says that the last good record is in force.
	LastGood bool `json:"last_good"`
}

// brokenRecords are the records with faults that were met last.
type brokenRecords struct {
	mu  sync.Mutex
	all map[string]brokenRecord
	// count is how many there are, so that a look costs no lock while there are none.
	count atomic.Int64
}

// add notes a record, and reports whether it was not noted with these faults.
func (b *brokenRecords) add(token, faults string, lastGood bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, had := b.all[token]
	if had && before.Faults == faults && before.LastGood == lastGood {
		return false
	}
	if b.all == nil {
		b.all = map[string]brokenRecord{}
	}
	if !had && len(b.all) >= maxBroken {
		for other := range b.all {
			delete(b.all, other)
			break
		}
	}
	b.all[token] = brokenRecord{Token: token, Faults: faults, Since: time.Now().UTC(), LastGood: lastGood}
	b.count.Store(int64(len(b.all)))
	return true
}

func (b *brokenRecords) remove(token string) {
	if b.count.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, token)
	b.count.Store(int64(len(b.all)))
}

// list returns the records in the order of their tokens.
func (b *brokenRecords) list() []brokenRecord {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]brokenRecord, 0, len(b.all))
	for _, record := range b.all {
		all = append(all, record)
	}
	slices.SortFunc(all, func(a, b brokenRecord) int { return cmp.Compare(a.Token, b.Token) })
	return all
}
