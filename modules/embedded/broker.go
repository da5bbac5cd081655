package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/listen"
	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/private"
)

// Broker is the embedded broker. It is started once and then stopped once. Any number of goroutines may call Address
// and String at any time.
type Broker struct {
	cfg    Config
	client kafka.Config
	log    *zap.Logger

	retentionInterval time.Duration

	mu      sync.RWMutex
	address string

	guard    *guard
	inside   net.Conn // a way around the guard, while starting
	cluster  *kfake.Cluster
	lock     *flock.Flock
	ctx      context.Context // over when the broker stops
	cancel   context.CancelFunc
	trimming *panics.Group
}

var _ kafka.LocalBroker = (*Broker)(nil)

const (
	// retentionInterval is how often the broker removes events that are too old or too many.
	retentionInterval = 5 * time.Second

	// A segment is the unit in which the broker gives back disk space. Segments of an eighth keep a topic near its
	// limit.
	segmentsPerPartition = 8
	minSegment           = 64 * configs.KiB
	maxSegment           = 64 * configs.MiB

	// Producers other than ours may rely on Kafka's default. A batch of messages is a little larger than its largest
	// message.
	smallestMaxMessage = 1_048_588
	batchOverhead      = 64 * configs.KiB
)

// NewBroker returns a broker that is not started. It serves the topics and the message size of the client's
// configuration.
func NewBroker(cfg Config, client kafka.Config, log *zap.Logger) *Broker {
	b := &Broker{
		cfg: cfg, client: client, log: log,
		retentionInterval: retentionInterval,
		address:           cfg.KafkaListen,
		trimming:          panics.NewGroup(log),
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.guard = newGuard(log, client.MaxMessageBytes, b.partitions(), b.limits)
	if cfg.SyncWrites {
		b.guard.syncer = newSyncer(b.dir(), log)
	}
	return b
}

// Address returns where the broker listens: the configured address before Start, then the real one.
func (b *Broker) Address() string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.address
}

// String describes the broker for a human, together with what the broker does not do.
func (b *Broker) String() string {
	safety := "one node, not replicated"
	if !b.cfg.SyncWrites {
		safety += "; not synced: a power loss takes what was acknowledged last"
	}
	if !b.cfg.loopback() {
		safety += "; no authentication: who reaches the port can read, write and delete"
	}
	return fmt.Sprintf("embedded broker at %s (%s), data in %s", b.Address(), safety, b.cfg.DataDir)
}

// Start loads the data, listens, and creates the topics that are missing. It returns an error if this is not done
// within start_timeout or before ctx is over. After an error it leaves nothing behind.
func (b *Broker) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.StartTimeout)
	defer cancel()
	opened := make(chan error, 1)
	panics.Go(b.log, starting, func() { opened <- panics.Try(b.log, starting, b.open) })
	select {
	case err := <-opened:
		return err
	case <-ctx.Done():
		// Nobody stops a broker that did not start, so the broker ends itself as soon as it can.
		panics.Go(b.log, stopping, func() {
			if <-opened == nil {
				if err := b.shutdown(); err != nil {
					b.log.Warn("ending a start that took too long", zap.Error(err))
				}
			}
		})
		return fmt.Errorf("embedded broker: loading its data took longer than embedded.start_timeout (%s) or "+
			"the start as a whole: %w", b.cfg.StartTimeout, ctx.Err())
	}
}

// These are the broker's names in the log lines about panics.
const (
	starting = "the start of the embedded broker"
	stopping = "the end of the embedded broker"
	trimming = "the retention of the embedded broker"
)

// open locks the data and loads it. If the broker does not start, even because of a panic, open leaves nothing behind.
func (b *Broker) open() (err error) {
	if err := makePrivate(b.cfg.DataDir, b.dir()); err != nil {
		return fmt.Errorf("embedded.data_dir: %w", err)
	}
	// Earlier versions let the group read, and left the modes of files to the broker. In a volume with fsGroup, which
	// has the set-group-ID bit, the group is how the next pod gets at its data.
	if found, err := os.Stat(b.dir()); err == nil && found.Mode()&(os.ModeSetgid|0o077) == 0o050 {
		if err := os.Chmod(b.dir(), 0o700); err != nil { //nolint:gosec // a directory needs the bit to be entered
			return fmt.Errorf("embedded.data_dir: %w", err)
		}
	}
	if b.lock, err = lock(filepath.Join(b.cfg.DataDir, "broker.lock")); err != nil {
		return fmt.Errorf("embedded.data_dir: %w", err)
	}
	if err := panics.Try(b.log, starting, b.load); err != nil {
		return errors.Join(err, panics.Try(b.log, stopping, b.close))
	}
	b.trimming.Keep(b.ctx, trimming, b.trim)
	return nil
}

// makePrivate makes directories that are missing, each with the ones above it. It returns an error if other users could
// put files into one of them. It makes none behind a symbolic link of another user.
func makePrivate(dirs ...string) error {
	for _, dir := range dirs {
		err := private.Check(dir)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(dir, 0o700); err == nil {
				err = private.Check(dir)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Broker) load() (err error) {
	var bind error // why the broker cannot listen
	options := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID("capture-embedded"),
		kfake.DataDir(b.dir()),
		kfake.ListenFn(func(string, string) (net.Listener, error) {
			listener, err := listen.TCP(context.Background(), "embedded.kafka_listen", b.cfg.KafkaListen)
			if err != nil {
				bind = err
				return nil, err
			}
			listener, b.inside = b.guard.listen(listener)
			return listener, nil
		}),
		kfake.DefaultNumPartitions(b.partitions()),
		kfake.WithLogger(logger{b.log.WithOptions(zap.WrapCore(thinned)).Sugar()}),
	}
	if b.cluster, err = kfake.NewCluster(options...); err != nil {
		if bind != nil {
			return bind
		}
		return fmt.Errorf("embedded broker: %w", err)
	}
	defer b.inside.Close() //nolint:errcheck // a pipe
	b.mu.Lock()
	b.address = b.cluster.ListenAddrs()[0]
	b.mu.Unlock()
	if !b.cfg.loopback() {
		b.log.Warn("embedded.kafka_listen is not a loopback address and the embedded broker has no authentication: "+
			"who reaches the port can read, write and delete", zap.String("address", b.Address()))
	}
	if err := b.createTopics(); err != nil {
		return err
	}
	if err := b.countTopics(); err != nil {
		return err
	}
	// A crash brings back events that retention had removed within a file. They go again before anybody reads them.
	b.cluster.ApplyRetention()
	return nil
}

// trim applies retention until ctx is over. The broker's own ticker is not started for topics that were loaded, and
// does not run often enough.
func (b *Broker) trim(ctx context.Context) {
	ticker := time.NewTicker(b.retentionInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			b.cluster.ApplyRetention()
		}
	}
}

// Stop saves the broker's state and closes it, within the section's StopBudget. Clients lose their connections.
func (b *Broker) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopBudget)
	defer cancel()
	closed := make(chan error, 1)
	panics.Go(b.log, stopping, func() { closed <- panics.Try(b.log, stopping, b.shutdown) })
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return errors.New("embedded broker: its state was not saved in time: the next start rebuilds it from the data")
	}
}

// shutdown ends the background work and closes the broker.
func (b *Broker) shutdown() error {
	b.cancel()
	b.trimming.Wait()
	return b.close()
}

func (b *Broker) close() error {
	if b.cluster != nil {
		b.cluster.Close()
	}
	if err := b.lock.Close(); err != nil {
		return fmt.Errorf("unlock embedded.data_dir: %w", err)
	}
	return nil
}

func (b *Broker) dir() string { return filepath.Join(b.cfg.DataDir, "broker") }

// partitions returns how many partitions a new topic gets. A single one keeps all events in the order in which they
// came.
func (b *Broker) partitions() int { return max(b.client.Topics.Partitions, 1) }

// createTopics creates the topics that are missing, and gives the existing ones the limits that are configured now.
func (b *Broker) createTopics() error {
	outdated := map[string]map[string]string{}
	for _, topic := range b.client.Topics.Names() {
		partitions := len(b.cluster.PartitionInfos(topic))
		if partitions == 0 {
			if err := b.cluster.CreateTopic(topic, int32(b.partitions()), b.limits(b.partitions())); err != nil {
				return fmt.Errorf("embedded broker: create topic %s: %w", topic, err)
			}
			continue
		}
		limits, current := b.limits(partitions), b.cluster.TopicInfo(topic).Configs
		for key, value := range limits {
			if current[key] == nil || *current[key] != value {
				outdated[topic] = limits
			}
		}
	}
	if len(outdated) == 0 {
		return nil
	}
	return b.alterTopics(outdated)
}

// alterTopics changes topics by a request to the broker, because the broker offers no other way.
func (b *Broker) alterTopics(limits map[string]map[string]string) error {
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	for topic, values := range limits {
		resource := kmsg.IncrementalAlterConfigsRequestResource{
			ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: topic,
		}
		for key, value := range values {
			resource.Configs = append(resource.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{
				Name: key, Op: kmsg.IncrementalAlterConfigOpSet, Value: &value,
			})
		}
		request.Resources = append(request.Resources, resource)
	}
	response, err := b.ask(request)
	if err != nil {
		return fmt.Errorf("embedded broker: change topics: %w", err)
	}
	for _, resource := range response.(*kmsg.IncrementalAlterConfigsResponse).Resources {
		if err := kerr.ErrorForCode(resource.ErrorCode); err != nil {
			return fmt.Errorf("embedded broker: change topic %s: %w", resource.ResourceName, err)
		}
	}
	return nil
}

// countTopics tells the guard which topics there are, so that it knows how many more clients may create.
func (b *Broker) countTopics() error {
	request := kmsg.NewPtrMetadataRequest() // about all topics
	request.Version = 1
	response, err := b.ask(request)
	if err != nil {
		return fmt.Errorf("embedded broker: list topics: %w", err)
	}
	ours := b.client.Topics.Names()
	for _, topic := range response.(*kmsg.MetadataResponse).Topics {
		b.guard.exists(*topic.Topic, len(topic.Partitions), slices.Contains(ours, *topic.Topic))
	}
	return nil
}

// ask sends the broker a request around the guard, in a version without tagged fields.
func (b *Broker) ask(request kmsg.Request) (kmsg.Response, error) {
	if err := b.inside.SetDeadline(time.Now().Add(b.cfg.StartTimeout)); err != nil {
		return nil, err
	}
	if _, err := b.inside.Write(kmsg.NewRequestFormatter().AppendRequest(nil, request, 0)); err != nil {
		return nil, err
	}
	var head [8]byte // size and correlation ID
	if _, err := io.ReadFull(b.inside, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	if _, err := io.ReadFull(b.inside, body); err != nil {
		return nil, err
	}
	response := request.ResponseKind()
	return response, response.ReadFrom(body)
}

// limits returns a topic's settings. Kafka limits bytes per partition, our configuration bytes per topic.
func (b *Broker) limits(partitions int) map[string]string {
	bytes := b.cfg.RetentionBytes / configs.ByteSize(partitions)
	segment := min(max(bytes/segmentsPerPartition, minSegment), maxSegment)
	message := max(b.client.MaxMessageBytes+batchOverhead, smallestMaxMessage)
	return map[string]string{
		"cleanup.policy":    "delete",
		"max.message.bytes": strconv.FormatInt(int64(message), 10),
		"retention.bytes":   strconv.FormatInt(int64(bytes), 10),
		"retention.ms":      strconv.FormatInt(b.cfg.Retention.Milliseconds(), 10),
		"segment.bytes":     strconv.FormatInt(int64(segment), 10),
	}
}

// thinned lets each text through once in ten seconds. On a full disk the broker logs a line for every batch.
func thinned(core zapcore.Core) zapcore.Core {
	return zapcore.NewSamplerWithOptions(core, 10*time.Second, 1, 0)
}

// logger hands the broker's own messages to our log. The broker's information is about every connection, so it becomes
// debug in ours. The broker logs in goroutines of its own.
type logger struct{ *zap.SugaredLogger }

func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	defer func() { _ = panics.Caught(recover()) }() // nobody can log this panic
	switch level {
	case kfake.LogLevelError:
		l.Errorf(format, args...)
	case kfake.LogLevelWarn:
		l.Warnf(format, args...)
	default:
		l.Debugf(format, args...)
	}
}
