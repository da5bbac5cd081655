//go:build linux

package testkit_test

import (
	"testing"

	"github.com/opencapture/capture/testkit"
	"github.com/opencapture/capture/testkit/redisserver"
)

// inRedis are the settings of nodes that share a real Redis and are patient with it: for these tests the machine may be
// as busy as it likes.
func inRedis(t *testing.T) []testkit.Option {
	t.Helper()
	redisserver.Integration(t)
	return []testkit.Option{
		testkit.Set("store.redis.addrs", redisserver.Start(t, redisserver.Options{}).Addr),
		testkit.Set("store.timeout", "1s"), testkit.Set("quota.on_store_failure", "closed"),
	}
}

func TestWhatOperatorsChangeInRedisHoldsForTheNextEvents(t *testing.T) { changed(t, inRedis(t)...) }

func TestARuleThatTheAPISetsInRedisDropsEventsOnAnotherNode(t *testing.T) { ruled(t, 2, inRedis(t)...) }
