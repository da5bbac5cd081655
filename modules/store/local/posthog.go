package local

import (
	"context"
	"time"
)

// HasPostHog implements store.PostHog: there is no Redis of PostHog's.
func (*Store) HasPostHog() bool { return false }

// SortedSet implements store.PostHog: it returns nothing.
func (*Store) SortedSet(context.Context, string, time.Time) (map[string]time.Time, error) {
	return nil, nil
}

// Members implements store.PostHog: it returns nothing.
func (*Store) Members(context.Context, string) ([]string, error) { return nil, nil }

// Strings implements store.PostHog: no key exists.
func (*Store) Strings(_ context.Context, keys ...string) ([]string, error) {
	return make([]string, len(keys)), nil
}
