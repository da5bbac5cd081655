package kafka

import (
	"context"
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
)

func TestOfSeveralVerdictsTheOneCountsThatIsTriedAgain(t *testing.T) {
	type verdict struct {
		settled bool
		err     error
	}
	acked, tooLarge, refused := verdict{true, nil}, verdict{true, sarama.ErrMessageSizeTooLarge}, verdict{true, sarama.ErrInvalidRecord}
	unavailable, timedOut, none := verdict{true, sarama.ErrNotLeaderForPartition}, verdict{true, errNoAnswer}, verdict{false, nil}
	for name, test := range map[string]struct {
		verdicts  []verdict
		state     events.State
		reason    events.Reason
		abandoned int64
	}{
		"all acknowledged":           {[]verdict{acked, acked, acked}, events.StateAccepted, "", 0},
		"the last is refused":        {[]verdict{acked, acked, refused}, events.StateRejected, events.ReasonRefused, 0},
		"the first is refused":       {[]verdict{tooLarge, acked, acked}, events.StateRejected, events.ReasonTooLarge, 0},
		"one in the middle fails":    {[]verdict{acked, unavailable, acked}, events.StateFailed, events.ReasonUnavailable, 0},
		"a failure after a refusal":  {[]verdict{tooLarge, acked, unavailable}, events.StateFailed, events.ReasonUnavailable, 0},
		"a refusal after a failure":  {[]verdict{timedOut, refused, tooLarge}, events.StateFailed, events.ReasonTimeout, 0},
		"no verdict after a refusal": {[]verdict{refused, none, acked}, events.StateFailed, events.ReasonTimeout, 1},
		"no verdict at all":          {[]verdict{none, none, none}, events.StateFailed, events.ReasonTimeout, 3},
		"the first of two failures":  {[]verdict{unavailable, none, timedOut}, events.StateFailed, events.ReasonUnavailable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Brokers = []string{"unused:9092"}
			bootstrap, err := NewBootstrap(cfg)
			require.NoError(t, err)
			scope := tally.NewTestScope("", nil)
			producer, err := NewProducer(cfg, bootstrap, zap.NewNop(), scope)
			require.NoError(t, err)

			// The event that is looked at lies between two that are acknowledged.
			batch := batchOf(3)
			messages := make([]Message, len(test.verdicts)+2)
			messages[0].state.Store(stateSettled)
			messages[len(messages)-1].state.Store(stateSettled)
			messages[len(messages)-1].event = 2
			for i, v := range test.verdicts {
				m := &messages[i+1]
				m.event = 1
				if v.settled {
					m.err = v.err
					m.state.Store(stateSettled)
				}
			}
			d := &parcel{producer: producer, set: &Set{Messages: messages}}
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(errNoAnswer)
			d.Settle(ctx, batch)

			require.Equal(t, test.state, batch.Events[1].Outcome.State)
			require.Equal(t, test.reason, batch.Events[1].Outcome.Reason)
			require.Equal(t, events.StateAccepted, batch.Events[0].Outcome.State)
			require.Equal(t, events.StateAccepted, batch.Events[2].Outcome.State)
			require.Equal(t, test.abandoned > 0, d.tainted.Load())
			require.Equal(t, -test.abandoned, producer.awaited.Load(), "every message without a verdict is given up")
			timeouts := int64(0)
			if c, counted := scope.Snapshot().Counters()["messages_failed_total+class=timeout"]; counted {
				timeouts = c.Value()
			}
			require.Equal(t, test.abandoned, timeouts)
		})
	}
}

func TestNothingIsSentBehindAMessageThatIsToBeSentAgain(t *testing.T) {
	for name, test := range map[string]struct {
		strict bool
		err    error
		behind error
	}{
		"a failure":                       {false, sarama.ErrNotLeaderForPartition, errBehind},
		"a refusal":                       {false, sarama.ErrMessageSizeTooLarge, nil},
		"a refusal among loaded messages": {true, sarama.ErrMessageSizeTooLarge, errBehind},
		"an acknowledgement":              {true, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Brokers = []string{"unused:9092"}
			bootstrap, err := NewBootstrap(cfg)
			require.NoError(t, err)
			producer, err := NewProducer(cfg, bootstrap, zap.NewNop(), tally.NoopScope)
			require.NoError(t, err)
			parcel := newParcel(producer, producer.encoder.load([]events.Message{{Topic: "t", Value: []byte("first")}, {Topic: "t", Value: []byte("second")}}))
			parcel.strict = test.strict
			messages := parcel.set.Messages
			value, err := messages[1].Value.Encode()
			require.NoError(t, err)
			require.Equal(t, "second", string(value))
			require.Equal(t, len("second"), messages[1].Value.Length())
			parcel.settle(&messages[0], test.err)
			_, err = messages[1].Value.Encode()
			require.ErrorIs(t, err, test.behind)
		})
	}
}
