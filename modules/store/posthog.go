package store

import (
	"context"
	"time"
)

// PostHog reads what PostHog's own application writes for its capture service, in the Redis of that application. It
// writes nothing there. The keys and their formats: docs/migrating.md. An answer comes within store.posthog.timeout,
// and every call waits for one answer, except SortedSet, which reads a large set in parts.
//
// Before the key of a sorted set the store puts store.posthog.prefix, as PostHog puts its REDIS_KEY_PREFIX. PostHog has
// no prefix before the keys of Strings.
type PostHog interface {
	// HasPostHog reports whether a Redis of PostHog's is configured. If not, the other methods return nothing.
	HasPostHog() bool

	// SortedSet returns the members of a sorted set whose scores are times at or after now, in seconds since 1970, each
	// with its time. A key that does not exist is an empty set.
	SortedSet(ctx context.Context, key string, now time.Time) (map[string]time.Time, error)

	// Members returns all members of a sorted set.
	Members(ctx context.Context, key string) ([]string, error)

	// Strings returns the values of several keys. A key that does not exist has the value "".
	Strings(ctx context.Context, keys ...string) ([]string, error)
}

// NoPostHog is the PostHog of a store that reads no Redis of PostHog's.
type NoPostHog struct{}

var _ PostHog = NoPostHog{}

// HasPostHog implements PostHog.
func (NoPostHog) HasPostHog() bool { return false }

// SortedSet implements PostHog: every set is empty.
func (NoPostHog) SortedSet(context.Context, string, time.Time) (map[string]time.Time, error) {
	return nil, nil
}

// Members implements PostHog: every set is empty.
func (NoPostHog) Members(context.Context, string) ([]string, error) { return nil, nil }

// Strings implements PostHog: no key exists.
func (NoPostHog) Strings(_ context.Context, keys ...string) ([]string, error) {
	return make([]string, len(keys)), nil
}
