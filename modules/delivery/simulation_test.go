package delivery

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

// Whatever Kafka and the process do, one after the other: what was accepted arrives, and the events of a user in the order of
// their requests; what Kafka acknowledged late does not arrive twice, as long as no process has ended in between.
func TestAcceptedEventsArriveInOrderWhateverHappens(t *testing.T) {
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		cfg := DefaultConfig()
		cfg.Ack = rapid.SampledFrom([]string{"spool", "auto"}).Draw(t, "ack")
		cfg.Spool.Dir = fmt.Sprintf("%s/%d", dir, run)
		cfg.Spool.Reserve, cfg.Spool.SegmentBytes = 0, configs.ByteSize(rapid.SampledFrom([]int{200, 5000}).Draw(t, "segment"))
		cfg.SpoolAfter, cfg.Timeout, cfg.StopTimeout = 2*time.Millisecond, 5*time.Second, 20*time.Millisecond
		kafka := newStub()
		start := func() *Delivery {
			d, err := newDeliveryWith(cfg, kafka, zap.NewNop(), tally.NoopScope, time.Millisecond)
			require.NoError(t, err)
			require.NoError(t, d.Start(context.Background()))
			return d
		}
		d := start()
		next, stops := 0, 0
		accepted := map[string][]string{}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "write", "hold", "ack", "fail", "away", "back", "restart"}).Draw(t, "step") {
			case "write":
				batch := &events.Batch{}
				for range rapid.IntRange(1, 5).Draw(t, "events") {
					next++
					batch.Events = append(batch.Events, events.Event{
						Name: fmt.Sprintf("%04d", next), DistinctID: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "user"),
					})
				}
				d.Write(context.Background(), batch)
				for i := range batch.Events {
					event := &batch.Events[i]
					require.Equal(t, events.StateAccepted, event.Outcome.State, "%v", event.Outcome.Err)
					accepted[event.DistinctID] = append(accepted[event.DistinctID], event.Name)
				}
			case "hold":
				kafka.hold()
			case "ack":
				kafka.release(nil)
			case "fail":
				kafka.release(errAway)
			case "away":
				kafka.goAway()
			case "back":
				kafka.comeBack()
			case "restart":
				stops++
				require.NoError(t, d.Stop(context.Background()))
				kafka.release(errAway) // as the client does when it is closed
				d = start()
			}
		}
		kafka.comeBack()
		kafka.release(nil)
		for deadline := time.Now().Add(patience); d.busy.Load() > 0; <-time.After(time.Millisecond) {
			require.True(t, time.Now().Before(deadline), "the spool is not emptied")
		}
		require.NoError(t, d.Stop(context.Background()))

		arrived := map[string][]string{}
		times := map[string]int{}
		for _, m := range kafka.stored {
			if times[string(m.Value)]++; times[string(m.Value)] == 1 {
				arrived[string(m.Key)] = append(arrived[string(m.Key)], string(m.Value))
			} else {
				require.Positive(t, stops, "%s arrived twice", m.Value)
			}
		}
		require.Equal(t, accepted, arrived)
	})
}
