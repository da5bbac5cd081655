package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/kafka"
	port "github.com/opencapture/capture/modules/produce"
)

// disk counts the synced paths, by their last part, and fails with err if that is set.
type disk struct {
	mu     sync.Mutex
	synced map[string]int
	err    error
}

func (d *disk) fsync(file *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.synced[filepath.Base(file.Name())]++
	return d.err
}

// take returns what was synced since the last call.
func (d *disk) take() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	synced := d.synced
	d.synced = map[string]int{}
	return synced
}

func TestWhatIsAcknowledgedIsSynced(t *testing.T) {
	disk := &disk{synced: map[string]int{}}
	broker, _ := startWatched(t, func(b *Broker) {
		b.cfg.RetentionBytes = configs.MiB // segments of 128 KiB
		b.guard.syncer.fsync = disk.fsync
	})
	defer stop(t, broker)
	conn := dial(t, broker)
	events := kafka.DefaultConfig().Topics.Events
	send := func(acks int16) {
		request := produceRequest(events, batch(func(b *kmsg.RecordBatch) {
			b.Records = make([]byte, 100_000) // nobody looks into it
		}))
		request.Acks = acks
		require.Zero(t, ask[*kmsg.ProduceResponse](t, conn, request, 7).Topics[0].Partitions[0].ErrorCode)
	}
	first := filepath.Base(broker.cfg.DataDir)
	send(-1)
	require.Equal(t, map[string]int{"0.dat": 1, events + "-0": 1, "partitions": 1, "broker": 1, first: 1}, disk.take(),
		"the first segment, and that it is there")
	send(1)
	require.Equal(t, map[string]int{"0.dat": 1}, disk.take())
	send(-1)
	require.Equal(t, map[string]int{"2.dat": 1, events + "-0": 1, "partitions": 1, "broker": 1, first: 1},
		disk.take(), "the second segment")
	ask[*kmsg.MetadataResponse](t, conn, kmsg.NewPtrMetadataRequest(), 1)
	require.Empty(t, disk.take())
}

func TestNothingIsAcknowledgedAfterTheDiskHasFailed(t *testing.T) {
	disk := &disk{synced: map[string]int{}, err: errors.New("input/output error")}
	broker, logs := startWatched(t, func(b *Broker) { b.guard.syncer.fsync = disk.fsync })
	events := kafka.DefaultConfig().Topics.Events
	failing := func() {
		conn := dial(t, broker)
		_, err := conn.Write(framed(produceRequest(events, batch(func(*kmsg.RecordBatch) {})), 7))
		require.NoError(t, err)
		requireClosed(t, conn)
	}
	failing()
	disk.mu.Lock()
	disk.err = nil
	disk.mu.Unlock()
	failing()
	require.Len(t, logs.FilterLevelExact(zapcore.ErrorLevel).All(), 1)
	require.Contains(t, logs.All()[0].Message, "acknowledges nothing until the next start")
	ask[*kmsg.MetadataResponse](t, dial(t, broker), kmsg.NewPtrMetadataRequest(), 1)
	stop(t, broker)

	again := start(t, broker.cfg, kafka.DefaultConfig())
	defer stop(t, again)
	produce(t, again.Address(), events, "alive")
}

func TestWithoutSyncWritesNothingIsSynced(t *testing.T) {
	cfg := testConfig(t)
	cfg.SyncWrites = false
	broker := start(t, cfg, kafka.DefaultConfig())
	defer stop(t, broker)
	require.Nil(t, broker.guard.syncer)
	produce(t, broker.Address(), kafka.DefaultConfig().Topics.Events, "alive")
}

func TestASegmentIsFoundByItsOffset(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"0.dat", "0.idx", "7.dat", "20.dat", "snapshot.json"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	for offset, want := range map[int64][]string{
		0: {"0.dat", "7.dat", "20.dat"}, 6: {"0.dat", "7.dat", "20.dat"}, 7: {"7.dat", "20.dat"},
		19: {"7.dat", "20.dat"}, 20: {"20.dat"}, 99: {"20.dat"},
	} {
		disk := &disk{synced: map[string]int{}}
		s := newSyncer(dir, nil)
		s.fsync = disk.fsync
		s.newest[dir] = 20
		require.NoError(t, s.keepFrom(dir, offset))
		synced := map[string]int{}
		for _, name := range want {
			synced[name] = 1
		}
		require.Equal(t, synced, disk.take(), offset)
	}
	require.NoError(t, newSyncer(dir, nil).keepFrom(filepath.Join(dir, "removed"), 3))
}

// A full disk takes no batch. When a producer sends the batch again, the broker must not answer that it is a copy.
func TestABatchThatWasNotWrittenIsNotAcknowledgedWhenItIsSentAgain(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("this system has no device that is always full")
	}
	for _, synced := range []bool{true, false} {
		broker, _ := startWatched(t, func(b *Broker) { b.cfg.SyncWrites = synced })
		topic := kafka.DefaultConfig().Topics.Events
		dir := filepath.Join(broker.cfg.DataDir, "broker", "partitions", topic+"-0")
		require.NoError(t, os.MkdirAll(dir, 0o700))
		segment := filepath.Join(dir, "0"+segmentSuffix)
		require.NoError(t, os.RemoveAll(segment))
		require.NoError(t, os.Symlink("/dev/full", segment))
		conn := dial(t, broker)
		for epoch := range int16(3) { // a producer takes the next epoch upon this answer
			request := produceRequest(topic, batch(func(b *kmsg.RecordBatch) {
				b.ProducerID, b.ProducerEpoch, b.FirstSequence = 7, epoch, 0
			}))
			answer := ask[*kmsg.ProduceResponse](t, conn, request, 7).Topics[0].Partitions[0]
			require.Equal(t, kerr.InvalidProducerEpoch.Code, answer.ErrorCode, "attempt %d", epoch)
		}

		cfg := kafka.DefaultConfig()
		cfg.Brokers, cfg.AckTimeout = []string{broker.Address()}, time.Second
		bootstrap, err := kafka.NewBootstrap(cfg)
		require.NoError(t, err)
		producer, err := kafka.NewProducer(cfg, bootstrap, zap.NewNop(), tally.NoopScope)
		require.NoError(t, err)
		require.NoError(t, producer.Start(t.Context()))
		report := make(chan error)
		producer.Produce([]port.Message{{Topic: topic, Value: []byte("lost")}},
			func(_ int, err error) { report <- err })
		require.Error(t, <-report, "what was not written is not acknowledged")
		require.NoError(t, producer.Stop(t.Context()))
		stop(t, broker)
	}
}
