package redis

import (
	"context"

	"github.com/opencapture/capture/modules/store"
)

// SettleAll tells the first server what waits to be settled, as a stop does.
func SettleAll(ctx context.Context, s store.Running) error {
	return s.(*Store).servers.all()[0].settleAll(ctx)
}
