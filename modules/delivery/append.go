package delivery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/produce"
)

// group holds the records of one topic on their way to its log.
type group struct {
	use     int
	indexes []int // of the messages in the request
	held    int   // messages that the producer holds as well
	size    int   // the most bytes of the records
	text    []byte
	records [][]byte
}

// groups is memory that an append needs, and that the next append uses again.
type groups struct{ list []group }

var groupsPool = sync.Pool{New: func() any { return new(groups) }}

// maxPooledText is the largest text of a group that is kept for another append.
const maxPooledText = 1 << 20

// of returns the group of a use, and adds the group if there is none.
func (g *groups) of(use int) *group {
	for i := range g.list {
		if g.list[i].use == use {
			return &g.list[i]
		}
	}
	if len(g.list) == cap(g.list) {
		g.list = append(g.list, group{})
	} else {
		g.list = g.list[:len(g.list)+1]
	}
	added := &g.list[len(g.list)-1]
	*added = group{
		use: use, indexes: added.indexes[:0], text: added.text[:0], records: added.records[:0],
	}
	return added
}

func (g *groups) recycle() {
	for i := range g.list {
		if cap(g.list[i].text) > maxPooledText {
			return
		}
	}
	g.list = g.list[:0]
	groupsPool.Put(g)
}

// append appends the wanted messages to the logs of their topics, each topic's in their order, and gives them their
// fates.
func (r *request) append(ctx context.Context, wanted func(*use, *item) bool) {
	g := groupsPool.Get().(*groups)
	defer g.recycle()
	for i := range r.items {
		it := &r.items[i]
		if !wanted(r.of(it), it) {
			continue
		}
		to := g.of(it.use)
		to.size += size(&r.messages[i])
		to.indexes = append(to.indexes, i)
		if it.isHeld() {
			to.held++
		}
	}
	switch len(g.list) {
	case 0:
	case 1:
		r.appendGroup(ctx, &g.list[0])
	default:
		appends := panics.NewGroup(r.d.log)
		for i := range g.list {
			appends.Go(appender, func() { r.appendGroup(ctx, &g.list[i]) })
		}
		appends.Wait()
	}
}

// appender names the goroutine that appends records, for the log lines about its panics.
const appender = "an append to the spool"

// appendGroup appends the records of one topic. If the spool refuses them, a message that the producer holds may still
// be acknowledged. The other messages are handed to the producer if no earlier record of the topic is in the spool.
// After a panic they fail instead, because their records may be in the log.
func (r *request) appendGroup(ctx context.Context, g *group) {
	u := &r.uses[g.use]
	panicked := true
	err := panics.Try(r.d.log, appender, func() error {
		release, err := r.d.recordRoom(ctx, g.size)
		if err != nil {
			panicked = false
			return err
		}
		defer release()
		r.encodeRecords(g)
		s, first, err := r.d.appendTo(ctx, u.topic, g, r.exempt)
		if err == nil {
			r.spooled(s, first, g.indexes)
		}
		panicked = false
		return err
	})
	if err == nil {
		return
	}
	r.d.metrics.refused.Inc(1)
	if !panicked && ctx.Err() == nil &&
		u.plan == planSpool && u.mode != modeMemory && u.isEmpty() && u.breaker.allow(time.Now()) {
		u.plan = planDirect
		return
	}
	for _, i := range g.indexes {
		// A message that the producer holds may still be acknowledged. So may a message whose report has come during
		// the append.
		if it := &r.items[i]; it.fate != fateSpool && !it.isHeld() {
			it.fail(errors.Join(it.why, err))
		}
	}
}

// encodeRecords writes the messages of the group as records.
func (r *request) encodeRecords(g *group) {
	g.text = slices.Grow(g.text, g.size)
	for _, i := range g.indexes {
		m := &r.messages[i]
		at := m.Time
		if at.IsZero() {
			at = r.started
		}
		start := len(g.text)
		g.text = appendRecord(g.text, m, at)
		g.records = append(g.records, g.text[start:len(g.text):len(g.text)])
	}
}

// recordRoom waits until records of so many bytes may be held, until their Append is over. Records that are larger than
// all the room take all of it.
func (d *Delivery) recordRoom(ctx context.Context, bytes int) (release func(), err error) {
	n := min(int64(bytes), int64(d.cfg.Buffer)/portionShare)
	if err := d.records.Acquire(ctx, n); err != nil {
		return nil, errLeft
	}
	return func() { d.records.Release(n) }, nil
}

// isHeld reports whether the message was handed to the producer, and the owner has settled no report on it. Only the
// owner calls isHeld. A report that comes meanwhile does not change the result, so the count of held messages and their
// later settlement mean the same messages.
func (it *item) isHeld() bool { return it.fate == fateOpen && it.state.Load() != stateIdle }

// appendTo appends a group to the log of its topic. The spooler drains the log only once it has the report on each
// message that the producer holds as well.
func (d *Delivery) appendTo(
	ctx context.Context, t *topic, g *group, exempt bool,
) (s *spooler, first uint64, err error) {
	to, err := d.spooling.spooler(t)
	if err != nil {
		return nil, 0, err
	}
	to.begin(g.held)
	released := g.held
	defer func() { to.end(released) }()
	appendRecords := to.log.Append
	if exempt {
		appendRecords = to.log.AppendExempt
	}
	if first, err = appendRecords(ctx, g.records); err != nil {
		return nil, 0, err
	}
	d.rate.came(len(g.text))
	released = 0
	return to, first, nil
}

// spooled gives fates to the messages whose records are in the log. From now on the spooler gets the reports on the
// messages that the producer holds.
func (r *request) spooled(s *spooler, first uint64, indexes []int) {
	for k, i := range indexes {
		it := &r.items[i]
		held := it.isHeld()
		it.fate, it.why = fateSpool, nil
		if !held {
			continue
		}
		it.spooler, it.seq = s, first+uint64(k)
		if it.state.CompareAndSwap(stateSent, stateSpooled) {
			r.unawait()
			continue
		}
		// The report has come during the append.
		if it.err == nil {
			it.fate = fateKafka
			r.of(it).acked++
		}
		s.report(it.seq, it.err)
	}
}

// size returns about how many bytes a message takes in the log.
func size(m *produce.Message) int { return len(m.Topic) + m.Size() }
