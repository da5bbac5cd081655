package dedup

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/local"
)

// newStore starts the store of a single node. Several stages on it are as good as several nodes.
func newStore(t *testing.T) store.Store {
	s := local.New(local.Config{Memory: 4 << 20, Counters: 1 << 20}, zap.NewNop(), tally.NoopScope)
	require.NoError(t, s.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
	return s
}
