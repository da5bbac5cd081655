package auth

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/transport/route"
)

// Auth is the gate that knows projects, and the stage that holds events to the scopes of their project. Start and Stop
// are each called once, Start first. The other methods are safe for concurrent use at any time.
type Auth struct {
	terms     *configs.Value[*terms]
	directory *directory
	replica   *replica // nil: none
	log       *zap.Logger
	metrics   *metrics

	// strangers counts the requests with tokens of no project that were taken since the log told of them. stranger is
	// one of their tokens.
	strangers atomic.Int64
	stranger  atomic.Pointer[string]

	cancel context.CancelFunc
	group  *panics.Group
}

var (
	_ events.Gate  = (*Auth)(nil)
	_ events.Stage = (*Auth)(nil)
)

// The refusals. They are made once, so that a refused request costs little. Their texts go to clients.
var (
	errUnknown = events.Errorf(events.Unauthorized, "API key does not belong to any project. "+
		"Check the project API key in your PostHog project settings").For(events.ReasonUnknownToken)
	errDisabled = events.Errorf(events.Forbidden, "the project of this API key is disabled").For(events.ReasonDisabled)
	errEndpoint = events.Errorf(events.Forbidden, "the project of this API key may not use this endpoint").
			For(events.ReasonOutOfScope)
	errOrigin = events.Errorf(events.Forbidden, "the project of this API key takes no events from this site: "+
		"the header Origin is none of its origins").For(events.ReasonOrigin)
	errNetwork = events.Errorf(events.Forbidden, "the project of this API key takes no events from this address").
			For(events.ReasonNetwork)
	errUnsure = events.Errorf(events.Unavailable, "it cannot be looked up at present whom this API key belongs to, "+
		"please retry").For(events.ReasonStore)
	errHistorical = events.Errorf(events.Forbidden, "the project of this API key takes no migrations of old events").
			For(events.ReasonOutOfScope)
	errKinds = errorsOfKinds()
)

// refusals are the refusals of whole requests, one for each reason.
var refusals = []*events.Error{errUnknown, errDisabled, errEndpoint, errOrigin, errNetwork, errUnsure}

func errorsOfKinds() (errs []*events.Error) {
	for _, resource := range events.Resources() {
		errs = append(errs, events.Errorf(events.Forbidden, "the project of this API key takes no events of "+
			"the kind %s", resource).For(events.ReasonOutOfScope))
	}
	return errs
}

const (
	// saveEvery is how often the replica is written, if there is something new to write.
	saveEvery = 10 * time.Second
	// tellEvery is how often the log tells of requests with tokens of no project.
	tellEvery = time.Minute
	// lookEvery is how often gauges are set.
	lookEvery = time.Second
)

// New returns an Auth that asks these authenticators beside the projects of files, the state that the nodes share and
// PostHog's Redis. withReplica says that projects are kept in a file (auth.replica), because the shared state may be
// away when the node starts.
func New(
	live *configs.Live, shared store.Store, withReplica bool, authenticators []Authenticator,
	log *zap.Logger, scope tally.Scope,
) (*Auth, error) {
	terms, err := configs.NewValue(live, newTerms)
	if err != nil {
		return nil, err
	}
	metrics := newMetrics(scope)
	all := append([]Authenticator{records{shared}, &postHog{store: shared, now: time.Now}}, authenticators...)
	directory, err := newDirectory(all, terms, log, metrics)
	if err != nil {
		return nil, err
	}
	a := &Auth{terms: terms, directory: directory, log: log, metrics: metrics, group: panics.NewGroup(log)}
	if path := terms.Now().Replica; withReplica && path != "" {
		a.replica = &replica{path: path, log: log}
	}
	shared.Watch(project.Kind, directory.changed)
	return a, nil
}

// Phase is events.PhaseAuth.
func (a *Auth) Phase() events.Phase { return events.PhaseAuth }

// Name is "auth".
func (a *Auth) Name() string { return "auth" }

// Admit refuses a request whose project is not known or may not send it, and tells the caller's project. Without a
// token it admits everybody: the protocol asks again when it knows the token.
func (a *Auth) Admit(_ context.Context, caller *events.Caller) error {
	if caller.Token == "" {
		return nil
	}
	terms := a.terms.In(caller.Config)
	known, verdict := a.directory.find(caller.Token, caller.ClientIP, terms)
	a.metrics.asked[verdict].Inc(1)
	if refusal := a.judge(caller, known, verdict, terms); refusal != nil {
		a.metrics.refused[refusal.Reason].Inc(1)
		return refusal
	}
	if known != nil {
		caller.Project = &known.project
	}
	return nil
}

// judge returns why a request is refused, or nil.
func (a *Auth) judge(caller *events.Caller, known *known, verdict verdict, terms *terms) *events.Error {
	switch {
	case verdict == isUnknown && terms.Mode == ModeStrict:
		return errUnknown
	case verdict == isUnknown && terms.Mode == ModeKnown:
		a.noteStranger(caller.Token)
		return nil
	case verdict == isUnasked && terms.Mode == ModeStrict:
		return errUnsure
	case verdict == isUnasked || verdict == isUnsure:
		if terms.closed() {
			return errUnsure
		}
		return nil
	case known == nil:
		return nil
	}
	record := &known.record
	switch {
	case record.Disabled:
		return errDisabled
	case !record.AllowsGroup(route.Group(caller.Group)):
		return errEndpoint
	case len(record.Origins) > 0 && !record.AllowsOrigin(caller.Header("Origin")):
		return errOrigin
	case !record.AllowsAddress(caller.ClientIP):
		return errNetwork
	}
	return nil
}

// noteStranger counts a request with a token of no project that is taken.
func (a *Auth) noteStranger(token string) {
	if a.strangers.Add(1) == 1 {
		token = strings.Clone(token)
		a.stranger.Store(&token)
	}
}

// Process rejects the pending events that are out of the scope of their project. It returns no Settle and no error.
func (a *Auth) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	if batch.Project == nil {
		if terms := a.terms.In(batch.Config); terms.Mode == ModeKnown && a.directory.isUnknown(batch.Token, terms) {
			for i := range batch.Events {
				batch.Events[i].Notes |= events.NoteUnknownToken
			}
		}
		return nil, nil
	}
	scopes := batch.Project.Scopes
	if scopes == 0 {
		return nil, nil
	}
	migration := batch.Historical && !scopes.Has(events.ScopeHistorical)
	for i := range batch.Events {
		event := &batch.Events[i]
		if !event.Pending() {
			continue
		}
		if migration {
			event.Reject(events.ReasonOutOfScope, errHistorical)
		} else if resource := event.Resource(); !scopes.Has(events.ScopeOf(resource)) {
			event.Reject(events.ReasonOutOfScope, errKinds[resource])
		}
	}
	return nil, nil
}

// Start loads the replica, and begins to keep the projects fresh.
func (a *Auth) Start(context.Context) error {
	if a.replica != nil {
		count, err := a.replica.load(a.directory)
		if err != nil {
			a.log.Warn("the replica of the projects cannot be used: without the shared state, this node knows no "+
				"projects but those of files", zap.String("path", a.replica.path), zap.Error(err))
		} else if count > 0 {
			a.log.Info("projects are known from the replica", zap.Int("projects", count),
				zap.String("path", a.replica.path))
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	for range refreshers {
		a.group.Keep(ctx, "the refresh of projects", a.directory.work)
	}
	a.group.Keep(ctx, "the watch over projects", a.watch)
	return nil
}

// Stop ends the refreshes and writes the replica.
func (a *Auth) Stop(ctx context.Context) error {
	if a.cancel == nil {
		return nil
	}
	a.cancel()
	saved := make(chan struct{})
	panics.Go(a.log, "the last writing of the replica", func() {
		defer close(saved)
		a.group.Wait()
		a.save()
	})
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	select {
	case <-saved:
	case <-ctx.Done():
		a.log.Warn("the replica of the projects was not written in time to stop: it may be some seconds old")
	}
	return nil
}

func (a *Auth) save() {
	if a.replica == nil {
		return
	}
	if err := a.replica.save(a.directory); err != nil {
		a.log.Warn("the replica of the projects cannot be written: this node could not start while the shared "+
			"state is away", zap.String("path", a.replica.path), zap.Error(err))
	}
}

// watch sets gauges, writes the replica and tells of strangers, until ctx is over.
func (a *Auth) watch(ctx context.Context) {
	look, save, tell := time.NewTicker(lookEvery), time.NewTicker(saveEvery), time.NewTicker(tellEvery)
	defer look.Stop()
	defer save.Stop()
	defer tell.Stop()
	for {
		select {
		case <-ctx.Done():
			a.tell()
			return
		case <-look.C:
			a.metrics.projects.Update(float64(a.directory.known.Len() + len(a.terms.Now().files)))
			a.metrics.broken.Update(float64(a.directory.broken.count.Load()))
		case <-save.C:
			a.save()
		case <-tell.C:
			a.tell()
		}
	}
}

// tell logs how many requests with tokens of no project were taken.
func (a *Auth) tell() {
	count := a.strangers.Swap(0)
	token := a.stranger.Swap(nil)
	if count == 0 {
		return
	}
	fields := []zap.Field{zap.Int64("requests", count)}
	if token != nil {
		fields = append(fields, zap.String("one_of_the_tokens", *token))
	}
	a.log.Warn("requests with tokens of no project were taken: auth.mode strict would refuse them", fields...)
}
