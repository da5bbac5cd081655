package embedded

import (
	"errors"
	"io/fs"
	"net"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/private"
)

// Config is the configuration section "embedded".
type Config struct {
	Enabled        bool             `key:"enabled" doc:"Whether the service runs the embedded broker while kafka.brokers is empty. If false, kafka.brokers must be given."`
	DataDir        string           `key:"data_dir" doc:"Directory that the embedded broker keeps its data in; one process at a time uses it. A directory that other users can write to is refused; the service makes a missing one with the right mode."`
	KafkaListen    string           `key:"kafka_listen" doc:"Address that the embedded broker listens on for Kafka clients, as host:port. The broker tells its clients to connect to this address. There is no authentication: everybody who reaches the port can read, write and delete."`
	RetentionBytes configs.ByteSize `key:"retention_bytes" doc:"Bytes that each topic keeps. Beyond that the broker removes the oldest events."`
	Retention      time.Duration    `key:"retention" doc:"How long events are kept."`
	StartTimeout   time.Duration    `key:"start_timeout" doc:"How long loading the data may take at start: about three seconds for each GiB of small events, over all topics."`
	SyncWrites     bool             `key:"sync_writes" doc:"Wait for the disk before an event is acknowledged, so that the event survives a power loss. An acknowledgement then takes ten to twenty times as long (half a millisecond on a quiet SSD, two on a busy one). If false, a power loss takes the events that were acknowledged last, even those that had been safe in the spool before the broker got them."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Enabled:        true,
		DataDir:        "./data",
		KafkaListen:    "127.0.0.1:19092",
		RetentionBytes: configs.GiB,
		Retention:      24 * time.Hour,
		StartTimeout:   8 * time.Second,
		SyncWrites:     true,
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(c.DataDir != "", "data_dir", "must not be empty")
	host := faults.CheckAddress("kafka_listen", c.KafkaListen)
	faults.Check(host != "" && !net.ParseIP(host).IsUnspecified(), "kafka_listen",
		"must name the address that clients are to connect to, got %q", c.KafkaListen)
	faults.Check(c.RetentionBytes >= configs.MiB, "retention_bytes", "must be at least %s, got %s",
		configs.MiB, c.RetentionBytes)
	faults.Check(c.Retention >= time.Minute, "retention", "must be at least 1m, got %s", c.Retention)
	faults.Check(c.StartTimeout > 0, "start_timeout", "must be positive, got %s", c.StartTimeout)
	return faults.Err()
}

// loopback reports whether only this machine reaches the port.
func (c Config) loopback() bool {
	host, _, err := net.SplitHostPort(c.KafkaListen)
	return err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback())
}

// MemoryBudget implements configs.MemoryBudgeter: the broker keeps its messages in memory as well as on the disk.
func (c Config) MemoryBudget(set *configs.Set, _ int64) int64 {
	client, err := configs.SectionOf[kafka.Config](set)
	if err != nil || !c.Enabled || len(client.Brokers) > 0 {
		return 0
	}
	return configs.Unbounded
}

// stopBudget leaves room for writing the state of a full broker.
const stopBudget = 5 * time.Second

// StartBudget is how long loading the data may take.
func (c Config) StartBudget() time.Duration { return c.StartTimeout }

// StopBudget is how long saving the state may take.
func (c Config) StopBudget() time.Duration { return stopBudget }

// stands reports whether the embedded broker stands in for a cluster.
func (c Config) stands(set *configs.Set) bool {
	client, err := configs.SectionOf[kafka.Config](set)
	return c.Enabled && err == nil && len(client.Brokers) == 0
}

// Listens returns the address at which Kafka clients reach the embedded broker.
func (c Config) Listens(set *configs.Set) map[string]string {
	if !c.stands(set) {
		return nil
	}
	return map[string]string{"kafka_listen": c.KafkaListen}
}

// dataCanBeKept checks the directory of the embedded broker, if that stands in for a cluster.
func dataCanBeKept(set *configs.Set) error {
	own, err := configs.SectionOf[Config](set)
	if err != nil || !own.stands(set) || own.DataDir == "" {
		return err
	}
	var faults configs.Faults
	faults.CheckDir("embedded.data_dir", own.DataDir, "the service would not start")
	if err := private.Check(own.DataDir); err != nil && !errors.Is(err, fs.ErrNotExist) && faults.Err() == nil {
		faults.Addf("embedded.data_dir", "%s", err)
	}
	return faults.Err()
}

// brokersAreThere checks that there is a broker to write to.
func brokersAreThere(set *configs.Set) error {
	own, err := configs.SectionOf[Config](set)
	if err != nil {
		return err
	}
	client, err := configs.SectionOf[kafka.Config](set)
	if err != nil {
		return nil //nolint:nilerr // a build without Kafka needs no brokers
	}
	var faults configs.Faults
	faults.Check(own.Enabled || len(client.Brokers) > 0, "kafka.brokers",
		"must name the cluster's brokers, as embedded.enabled is false")
	return faults.Err()
}
