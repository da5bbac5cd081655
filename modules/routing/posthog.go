package routing

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/restriction"
	"github.com/opencapture/capture/modules/store"
)

const (
	// restrictionKey begins the keys of the restrictions that PostHog's application writes: a JSON document for each
	// action.
	restrictionKey = "event_ingestion_restriction_dynamic_config:"
	// sessionsKey is the key of the sessions whose recordings PostHog has put into overflow, with the times of its end.
	sessionsKey = "@posthog/capture-overflow/replay"
	// sessionsRefresh is how often the sessions are read.
	sessionsRefresh = 5 * time.Second
	// restrictionVersion is the version of a restriction that has lists. PostHog's service skips the others, which name
	// a single thing each.
	restrictionVersion = 2
)

// postHogActions are PostHog's names of the actions.
var postHogActions = [restriction.ActionCount]string{
	restriction.Drop:       "drop_event_from_ingestion",
	restriction.Overflow:   "force_overflow_from_ingestion",
	restriction.DLQ:        "redirect_to_dlq",
	restriction.Topic:      "redirect_to_topic",
	restriction.SkipPerson: "skip_person_processing",
}

// pipelines are the lanes of each of PostHog's pipelines. The other lanes belong to no pipeline that has restrictions.
var pipelines = map[string]lanes{
	"analytics":          lanesOf(events.LaneMain, events.LaneHistorical),
	"session_recordings": lanesOf(events.LaneRecordings),
	"ai":                 lanesOf(events.LaneAI),
	"errortracking":      lanesOf(events.LaneExceptions),
}

// entry is a restriction as PostHog's application writes it.
type entry struct {
	Version     *int     `json:"version"`
	Token       string   `json:"token"`
	Pipelines   []string `json:"pipelines"`
	DistinctIDs []string `json:"distinct_ids"`
	SessionIDs  []string `json:"session_ids"`
	EventNames  []string `json:"event_names"`
	EventUUIDs  []string `json:"event_uuids"`
	// Args has the topic of an entry that names one. Of the other actions it may be anything.
	Args  json.RawMessage `json:"args"`
	Index int64           `json:"index"`
}

// posthog reads the restrictions of PostHog's application.
type posthog struct {
	stage  *Stage
	store  store.Store
	causes *observability.Causes
	woken  chan struct{}

	// The rest belongs to the one goroutine that reads.
	documents  [restriction.ActionCount]document
	next       time.Time // when the restrictions are due to be read
	sessionsAt time.Time // when the sessions were last read
	dirty      bool      // the index is not what the restrictions are
	stale      uint      // the documents that are stale, as bits
	broken     broken

	status atomic.Pointer[SourceStatus]
}

// document is the restrictions of one action.
type document struct {
	digest [sha256.Size]byte // of the text
	rules  []*rule
	faults map[string]error // of single restrictions, by the ids of their rules
	fault  error            // of the document as a whole: the rules are those of the one before
	at     time.Time        // when a sound document was last read
}

func newPostHog(from store.Store, stage *Stage) *posthog {
	p := &posthog{
		stage: stage, store: from, woken: make(chan struct{}, 1),
		causes: observability.NewCauses(stage.log, "PostHog's restrictions cannot be read",
			"PostHog's restrictions are read again", time.Minute),
	}
	if from.HasPostHog() {
		p.status.Store(&SourceStatus{Source: fromPostHog.String(), State: unread.String()})
	}
	return p
}

func (p *posthog) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// keep reads the restrictions until ctx is over.
func (p *posthog) keep(ctx context.Context) {
	ticker := time.NewTicker(sessionsRefresh)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.woken:
			p.dirty = true // the configuration may have changed
		case <-ticker.C:
		}
		p.step(ctx)
	}
}

// step reads what is due, and puts it in force.
func (p *posthog) step(ctx context.Context) {
	if !p.store.HasPostHog() {
		return
	}
	config := p.stage.policy.Now()
	if !config.PostHog {
		p.stage.publish(func(s *shared) { s.posthog, s.sessions = newIndex(nil), nil })
		p.dirty, p.next, p.stale = true, time.Time{}, 0
		p.broken.faults = nil
		p.measure(0)
		p.status.Store(&SourceStatus{Source: fromPostHog.String(), State: "off"})
		return
	}
	sessions, err := p.store.SortedSet(ctx, sessionsKey, p.store.Now())
	if err == nil {
		p.sessionsAt = time.Now()
	}
	if now := time.Now(); !now.Before(p.next) {
		fault := p.read(ctx)
		if err = errors.Join(fault, err); fault == nil {
			p.next = now.Add(config.RulesRefresh)
		}
	}
	p.causes.Log(err)
	if err != nil {
		p.stage.metrics.failures[fromPostHog].Inc(1)
	}
	p.publish(sessions, err)
}

// read reads the restrictions. What cannot be read stays as it was.
func (p *posthog) read(ctx context.Context) error {
	keys := make([]string, len(postHogActions))
	for action, name := range postHogActions {
		keys[action] = restrictionKey + name
	}
	texts, err := p.store.Strings(ctx, keys...)
	if err == nil {
		for action, text := range texts {
			p.take(restriction.Action(action), text)
		}
		return nil
	}
	if errors.Is(err, store.ErrUnavailable) {
		return err
	}
	// A key that holds something else than a text takes no other along.
	for action, key := range keys {
		texts, err := p.store.Strings(ctx, key)
		switch {
		case err == nil:
			p.take(restriction.Action(action), texts[0])
		case errors.Is(err, store.ErrUnavailable):
			return err
		default:
			d := &p.documents[action]
			p.dirty = p.dirty || d.fault == nil || d.fault.Error() != err.Error()
			d.fault, d.digest = err, [sha256.Size]byte{}
		}
	}
	return nil
}

// take takes the text of a document.
func (p *posthog) take(action restriction.Action, text string) {
	d := &p.documents[action]
	if digest := sha256.Sum256([]byte(text)); digest != d.digest {
		d.digest, p.dirty = digest, true
		d.read(action, text)
	}
	if d.fault == nil {
		d.at = time.Now()
	}
}

// read reads a document of an action. An empty text, of a key that does not exist, has no restrictions.
func (d *document) read(action restriction.Action, text string) {
	var entries []json.RawMessage
	d.fault = nil
	if len(text) > maxRuleBytes {
		d.fault = fmt.Errorf("it has %d bytes, and %d are allowed", len(text), maxRuleBytes)
	} else if text != "" {
		d.fault = json.Unmarshal([]byte(text), &entries)
	}
	if d.fault != nil {
		d.fault = fmt.Errorf("the document is no list of restrictions, and the one before stays: %w", d.fault)
		return
	}
	d.rules, d.faults = nil, map[string]error{}
	indices := map[*rule]int64{}
	for i, raw := range entries {
		name := postHogActions[action] + "/" + strconv.Itoa(i+1)
		of, where, index, err := parseRestriction(action, raw)
		switch {
		case err == nil && len(d.rules) >= maxRules && where != 0:
			err = errNoRoom
			fallthrough
		case err != nil:
			d.faults[fromPostHog.String()+"/"+name] = err
		case where != 0:
			r := newRule(fromPostHog, name, of, 0)
			r.lanes = where
			indices[r] = index
			d.rules = append(d.rules, r)
		}
	}
	// Of two rules with a topic, the one with the higher index wins, or else the later one.
	slices.SortStableFunc(d.rules, func(a, b *rule) int { return cmp.Compare(indices[a], indices[b]) })
	for i, r := range d.rules {
		r.rank += int64(i)
	}
}

// parseRestriction reads a restriction. If it concerns nothing here, such as one of another version, where is empty.
func parseRestriction(
	action restriction.Action, raw []byte,
) (of restriction.Rule, where lanes, index int64, err error) {
	var e entry
	// The version comes first: the fields of another version may have other types.
	var version struct{ Version json.RawMessage }
	if err := json.Unmarshal(raw, &version); err != nil {
		return of, 0, 0, err
	}
	if string(version.Version) != strconv.Itoa(restrictionVersion) {
		return of, 0, 0, nil
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return of, 0, 0, err
	}
	for _, pipeline := range e.Pipelines {
		where |= pipelines[pipeline]
	}
	of = restriction.Rule{
		Token: e.Token, Action: action, DistinctIDs: e.DistinctIDs, Events: e.EventNames, Sessions: e.SessionIDs,
	}
	for _, text := range e.EventUUIDs {
		// A text that is no uuid is that of no event.
		if id, err := uuid.Parse(text); err == nil {
			of.UUIDs = append(of.UUIDs, id)
		}
	}
	if action == restriction.Topic {
		var args struct{ Topic string }
		if err := json.Unmarshal(e.Args, &args); err == nil {
			of.Topic = args.Topic
		}
	}
	switch {
	case where == 0:
	case e.Token == "":
		err = errors.New("it names no token")
	case len(of.UUIDs) == 0 && len(e.EventUUIDs) > 0:
		err = errors.New("event_uuids has no uuid, so no event is meant")
	case action == restriction.Topic && of.Topic == "":
		err = errors.New("it names no topic in args.topic")
	}
	return of, where, e.Index, err
}

// publish puts what has changed in force. sessions is nil if they could not be read; err is how the attempt ended.
func (p *posthog) publish(sessions map[string]time.Time, err error) {
	staleAfter := p.stage.policy.Now().RulesStaleAfter
	p.stage.publish(func(s *shared) {
		switch {
		case sessions != nil:
			s.sessions = sessions
		case time.Since(p.sessionsAt) >= staleAfter:
			s.sessions = nil
		}
	})
	stale := uint(0)
	for action := range p.documents {
		if time.Since(p.documents[action].at) >= staleAfter {
			stale |= 1 << action
		}
	}
	if p.dirty || stale != p.stale {
		p.dirty, p.stale = false, stale
		p.compile()
	}
	p.report(err)
}

// compile makes the index of the documents that are not stale, and puts it in force.
func (p *posthog) compile() {
	p.broken.faults = nil
	var rules []*rule
	for action := range p.documents {
		d := &p.documents[action]
		if d.fault != nil {
			p.broken.add(fromPostHog.String()+"/"+postHogActions[action], d.fault)
		}
		if p.stale&(1<<action) != 0 {
			continue
		}
		for id, fault := range d.faults {
			p.broken.add(id, fault)
		}
		for _, r := range d.rules {
			if err := p.stage.checkTopic(&r.Rule); err != nil {
				p.broken.add(r.id, err)
				continue
			}
			rules = append(rules, r)
		}
	}
	p.broken.tell(p.stage.log)
	index := newIndex(rules)
	p.stage.publish(func(s *shared) { s.posthog = index })
	p.measure(index.size)
}

// measure sets the gauges. rules is how many are in force.
func (p *posthog) measure(rules int) {
	p.stage.metrics.rules[fromPostHog].Update(float64(rules))
	p.stage.metrics.broken[fromPostHog].Update(float64(len(p.broken.faults)))
	p.stage.metrics.stale[fromPostHog].Update(oneIf(p.stale != 0))
}

// report notes how the restrictions stand, for people. err is how the last attempt to read them has ended.
func (p *posthog) report(err error) {
	shared := p.stage.shared.Load()
	status := &SourceStatus{
		Source: fromPostHog.String(), State: current.String(), Rules: shared.posthog.size,
		Tokens: len(shared.posthog.projects), Sessions: len(shared.sessions),
		BrokenRules: len(p.broken.faults), Broken: p.broken.list(),
	}
	if p.stale != 0 {
		status.State = ignored.String()
	}
	if err != nil {
		status.Error = err.Error()
	}
	oldest := p.documents[0].at
	for action := range p.documents {
		if at := p.documents[action].at; at.Before(oldest) {
			oldest = at
		}
	}
	if !oldest.IsZero() {
		at := oldest.UTC()
		status.AnsweredAt = &at
	}
	p.status.Store(status)
}
