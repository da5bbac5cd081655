package kafka_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
)

// verdicts collects what a parcel tells after its owner has left.
type verdicts struct {
	mu   sync.Mutex
	told map[int]error
}

func (v *verdicts) take(i int, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.told == nil {
		v.told = map[int]error{}
	}
	if _, twice := v.told[i]; twice {
		err = errors.New("told twice")
	}
	v.told[i] = err
}

func (v *verdicts) all() map[int]error {
	v.mu.Lock()
	defer v.mu.Unlock()
	told := map[int]error{}
	for i, err := range v.told {
		told[i] = err
	}
	return told
}

func pack(t *testing.T, producer *kafka.Producer, b *events.Batch) events.Parcel {
	t.Helper()
	parcel, err := producer.Pack(t.Context(), b)
	require.NoError(t, err)
	return parcel
}

func TestAParcelTellsVerdictsAfterItsOwnerHasLeft(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	producer, scope := start(t, config(broker.ListenAddrs()...))
	release := hold(broker)
	defer release()
	parcel := pack(t, producer, batch(0, 3))
	require.Equal(t, 3, parcel.Len())
	parcel.Send(t.Context())
	for i := range parcel.Len() {
		settled, err := parcel.Verdict(i)
		require.False(t, settled)
		require.NoError(t, err)
	}
	var late verdicts
	parcel.Leave(late.take)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, producer.Flush(short), context.DeadlineExceeded)

	release()
	require.NoError(t, producer.Flush(t.Context()))
	require.Equal(t, map[int]error{0: nil, 1: nil, 2: nil}, late.all())
	require.EqualValues(t, 3, counter(scope, "late_acks_total+"))
}

func TestAVerdictThatCameUnseenIsToldOnLeaving(t *testing.T) {
	t.Parallel()
	producer, _ := start(t, config(fake(t).ListenAddrs()...))
	parcel := pack(t, producer, batch(0, 2))
	parcel.Send(t.Context())
	<-parcel.Done()
	settled, err := parcel.Verdict(0)
	require.True(t, settled)
	require.NoError(t, err)
	var late verdicts
	parcel.Leave(late.take)
	require.Equal(t, map[int]error{1: nil}, late.all())
}

func TestPackingNeedsNoConnection(t *testing.T) {
	t.Parallel()
	producer, scope := newProducer(t, config(freeAddress(t)))
	parcel := pack(t, producer, batch(0, 2))
	var m events.Message
	parcel.Read(1, &m)
	require.Equal(t, "phc_test:user", string(m.Key))
	require.NotEmpty(t, m.Value)
	require.NotEmpty(t, m.Headers)
	require.Equal(t, 1, parcel.Event(1))
	parcel.Send(t.Context())
	<-parcel.Done()
	settled, err := parcel.Verdict(1)
	require.True(t, settled)
	require.ErrorContains(t, err, "not connected to Kafka")
	parcel.Leave(nil)
	require.EqualValues(t, 2, counter(scope, "messages_failed_total+class=unavailable"))

	unsent := pack(t, producer, batch(0, 2))
	unsent.Leave(func(int, error) { t.Error("nothing was sent") })
}

func TestParcelsThatAreNotSentTakeABufferOfTheirOwn(t *testing.T) {
	t.Parallel()
	cfg := config(freeAddress(t))
	cfg.Buffer = 2 * cfg.MaxMessageBytes
	producer, _ := newProducer(t, cfg)
	var parcels []events.Parcel
	for {
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		parcel, err := producer.Pack(short, batch(0, 500))
		cancel()
		if err != nil {
			require.ErrorContains(t, err, "no room in kafka.buffer")
			require.Equal(t, events.Unavailable, events.CodeOf(err))
			break
		}
		parcels = append(parcels, parcel)
	}
	require.NotEmpty(t, parcels)
	for _, parcel := range parcels {
		parcel.Leave(nil)
	}
	pack(t, producer, batch(0, 500)).Leave(nil)
}

func TestLoadedMessagesArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	brokers := cluster(t)
	cfg := config(brokers...)
	producer, _ := start(t, cfg)
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	value := []byte(`{"uuid":"u","data":"{\"properties\":{\"n\":7}}"}`)
	parcel := producer.Load([]events.Message{
		{Topic: cfg.Topics.Events, Key: []byte("k"), Value: value, Time: at, Headers: []events.Header{{Key: []byte("a"), Value: []byte("b")}}},
		{Topic: cfg.Topics.Events, Value: value},
	})
	parcel.Send(t.Context())
	<-parcel.Done()
	for i := range parcel.Len() {
		_, err := parcel.Verdict(i)
		require.NoError(t, err)
	}
	parcel.Leave(nil)
	keyed, other := 0, 0
	for _, record := range consume(t, brokers, cfg.Topics.Events, 2) {
		require.Equal(t, string(value), string(record.Value))
		if record.Key == nil {
			other++
			require.WithinDuration(t, time.Now(), record.Timestamp, time.Minute)
			continue
		}
		keyed++
		require.Equal(t, "k", string(record.Key))
		require.True(t, at.Equal(record.Timestamp), "%s %s", at, record.Timestamp)
		require.Len(t, record.Headers, 1)
		require.Equal(t, "b", string(record.Headers[0].Value))
	}
	require.Equal(t, 1, keyed)
	require.Equal(t, 1, other)
	require.Equal(t, cfg.Topics.DLQ, producer.DeadLetterTopic())
}

func TestARefusalTellsItsReason(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := config(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	for reason, code := range map[string]*kerr.Error{
		"too_large": kerr.MessageTooLarge, "invalid": kerr.InvalidRecord, "unauthorized": kerr.TopicAuthorizationFailed, "timestamp": kerr.InvalidTimestamp,
	} {
		refuse(broker, code, 1)
		parcel := pack(t, producer, batch(0, 1))
		parcel.Send(t.Context())
		<-parcel.Done()
		_, err := parcel.Verdict(0)
		var refused *events.RefusedError
		require.ErrorAs(t, err, &refused, reason)
		require.Equal(t, reason, refused.Reason)
		parcel.Leave(nil)
	}
}

func TestATopicIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	brokers := cluster(t)
	cfg := config(brokers...)
	producer, _ := start(t, cfg)
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	reader := kafka.NewReader(cfg, bootstrap)
	none := func(int32, int64, *events.Message) error { return errors.New("there is nothing") }
	require.NoError(t, reader.ReadTopic(t.Context(), cfg.Topics.Events, none))
	require.NoError(t, reader.ReadTopic(t.Context(), "no-such-topic", none))

	b := batch(0, 20)
	for i := range b.Events {
		b.Events[i].DistinctID = string(rune('a' + i))
	}
	producer.Write(t.Context(), b)
	requireAll(t, b, events.StateAccepted, "")
	ids, next := map[string]bool{}, map[int32]int64{}
	require.NoError(t, reader.ReadTopic(t.Context(), cfg.Topics.Events, func(partition int32, offset int64, m *events.Message) error {
		require.Equal(t, next[partition], offset)
		next[partition]++
		for _, header := range m.Headers {
			if string(header.Key) == "distinct_id" {
				ids[string(header.Value)] = true
			}
		}
		return nil
	}))
	require.Len(t, ids, 20)

	enough := errors.New("enough")
	require.ErrorIs(t, reader.ReadTopic(t.Context(), cfg.Topics.Events, func(int32, int64, *events.Message) error { return enough }), enough)
	cfg.Brokers = []string{freeAddress(t)}
	bootstrap, err = kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	require.ErrorContains(t, kafka.NewReader(cfg, bootstrap).ReadTopic(t.Context(), cfg.Topics.Events, none), "no broker answers at")
}
