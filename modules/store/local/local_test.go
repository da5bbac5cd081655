package local

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/storetest"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestTheStoreInMemoryKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Installation {
		c := &clock{now: time.Now()}
		s := New(Config{Memory: 64 << 20, Counters: 64 << 20, Now: c.Now}, zap.NewNop(), tally.NoopScope)
		started := false
		return storetest.Installation{
			Node: func(before func(store.Store)) store.Store {
				if before != nil {
					before(s)
				}
				if !started {
					started = true
					require.NoError(t, s.Start(context.Background()))
					t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
				}
				return s
			},
			Pass:  c.pass,
			Quick: true,
		}
	})
}
