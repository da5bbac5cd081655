package auth

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

// Authenticator knows whom tokens belong to. The directory asks its authenticators in the order of (Rank, Name) until
// one knows the token, and remembers the answer. A module adds one by AsAuthenticator.
type Authenticator interface {
	// Rank is where the authenticator stands among the others. That of the shared state has 100, that of PostHog 900.
	Rank() int
	Name() string
	// Project returns the project that the token belongs to, or nil if the authenticator does not know the token. An
	// error says that the authenticator cannot tell; a *configs.FaultsError, that it knows the token, but that the
	// record of the project has faults. Project is safe for concurrent use, ends with ctx and keeps nothing of the
	// token.
	Project(ctx context.Context, token string) (*project.Record, error)
}

// records knows the projects of the shared state.
type records struct{ store store.Records }

func (records) Rank() int    { return 100 }
func (records) Name() string { return "store" }

func (r records) Project(ctx context.Context, token string) (*project.Record, error) {
	fields, err := r.store.Get(ctx, project.Kind, token)
	if err != nil || len(fields) == 0 {
		return nil, err
	}
	record, err := project.Parse(fields)
	if err != nil {
		return nil, err
	}
	return &record, nil
}

// postHog knows the tokens that PostHog's own application lists for its capture service. It knows nothing but that
// there is such a project. While PostHog's Redis does not answer, one request a second waits for it.
type postHog struct {
	store store.PostHog
	now   func() time.Time
	// away is when Redis is to be asked again, in nanoseconds since 1970; 0: at any time.
	away atomic.Int64
}

var errPostHogAway = errors.New("PostHog's Redis did not answer just now")

const (
	postHogToken = "capture_known_token:"
	// postHogSwept is the key of the time, in seconds since 1970, at which the list was known to be whole.
	postHogSwept = "capture_known_tokens_swept_at"
	// postHogFresh is how long after that time a token that is not listed is one of no project.
	postHogFresh = time.Hour
)

func (*postHog) Rank() int    { return 900 }
func (*postHog) Name() string { return "posthog" }

func (p *postHog) Project(ctx context.Context, token string) (*project.Record, error) {
	if !p.store.HasPostHog() {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err // Others have used up the time.
	}
	if until := p.away.Load(); until != 0 {
		now := p.now().UnixNano()
		if now < until || !p.away.CompareAndSwap(until, now+int64(retryAfter)) {
			return nil, errPostHogAway
		}
	}
	values, err := p.store.Strings(ctx, postHogToken+token, postHogSwept)
	if err != nil {
		if errors.Is(err, store.ErrUnavailable) { // else it is the record of this token that cannot be read
			p.away.Store(p.now().Add(retryAfter).UnixNano())
		}
		return nil, err
	}
	if p.away.Load() != 0 {
		p.away.Store(0)
	}
	switch {
	case len(values) != 2:
		return nil, fmt.Errorf("PostHog's Redis answers %d values to a question for 2", len(values))
	case values[0] != "":
		return &project.Record{}, nil
	}
	seconds, err := strconv.ParseInt(values[1], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("PostHog's list of tokens does not say when it was whole (%s)", postHogSwept)
	}
	if age := p.now().Sub(time.Unix(seconds, 0)); age > postHogFresh {
		return nil, fmt.Errorf("PostHog's list of tokens was last whole %s ago (%s)", age.Round(time.Second),
			postHogSwept)
	}
	return nil, nil
}
