package embedded

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/kafka"
)

func requirePanic(t *testing.T, logs *observer.ObservedLogs, who, function string) {
	t.Helper()
	told := func() []observer.LoggedEntry { return logs.FilterMessage(who + " panicked").All() }
	require.Eventually(t, func() bool { return len(told()) > 0 }, patience, time.Millisecond)
	require.Contains(t, told()[0].ContextMap()["stack"], function)
}

func TestARequestThatPanicsEndsItsConnectionAndNothingElse(t *testing.T) {
	broker, logs := startWatched(t, nil)
	defer stop(t, broker)
	broker.guard.limits = nil // a new topic calls limits, which panics
	request := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "new", 1, 1
	request.Topics = append(request.Topics, topic)
	conn := dial(t, broker)
	_, err := conn.Write(framed(request, 4))
	require.NoError(t, err)
	requireClosed(t, conn)
	requirePanic(t, logs, guarding, "embedded.(*guard).judge")
	produce(t, broker.Address(), kafka.DefaultConfig().Topics.Events, "alive")
}

func TestAnAnswerThatPanicsEndsItsConnectionAndIsNoAcknowledgement(t *testing.T) {
	fails := true
	broker, logs := startWatched(t, func(b *Broker) {
		b.guard.syncer = newSyncer(b.dir(), zap.NewNop())
		sync := b.guard.syncer.fsync
		b.guard.syncer.fsync = func(file *os.File) error {
			if fails {
				fails = false
				panic("a test says so")
			}
			return sync(file)
		}
	})
	defer stop(t, broker)
	// The client sends the batch again on another connection.
	produce(t, broker.Address(), kafka.DefaultConfig().Topics.Events, "alive")
	require.False(t, fails)
	requirePanic(t, logs, guarding, "embedded.(*syncer).keep")
}

func TestAStartThatPanicsLeavesNothingBehind(t *testing.T) {
	cfg := testConfig(t)
	broken := NewBroker(cfg, kafka.DefaultConfig(), zap.NewNop())
	broken.log = nil
	require.ErrorContains(t, broken.Start(context.Background()), "panic: ")
	broker := start(t, cfg, kafka.DefaultConfig())
	defer stop(t, broker)
	produce(t, broker.Address(), kafka.DefaultConfig().Topics.Events, "alive")
}

func TestAStopThatPanicsIsAnError(t *testing.T) {
	broker, logs := startWatched(t, nil)
	lock := broker.lock
	broker.lock = nil
	require.ErrorContains(t, broker.Stop(context.Background()), "panic: ")
	requirePanic(t, logs, stopping, "embedded.(*Broker).shutdown")
	require.NoError(t, lock.Close())
}
