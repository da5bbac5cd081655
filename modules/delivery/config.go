package delivery

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/private"
)

// Config is the configuration section "delivery".
type Config struct {
	Ack   string `key:"ack" live:"true" doc:"What a 200 means: kafka (all in-sync replicas have the events), spool (the events are on this machine's disk and go to Kafka from there), auto (kafka, or spool when Kafka takes too long) or memory (nothing; for load tests and throw-away data)."`
	Lanes Lanes  `key:"lanes" live:"true"`

	Buffer      configs.ByteSize `key:"buffer" doc:"Bytes of messages that the whole process may hold in memory at once: messages that are being built, and messages that wait for Kafka's acknowledgement or the disk. A request without room waits; after delivery.timeout it is answered 503."`
	SpoolAfter  time.Duration    `key:"spool_after" live:"true" doc:"How long auto waits for Kafka before it writes the events to the spool."`
	Timeout     time.Duration    `key:"timeout" live:"true" doc:"How long a request may wait for its events to be safe; after that it is answered 503."`
	StopTimeout time.Duration    `key:"stop_timeout" doc:"How long a stop waits for Kafka to acknowledge the messages that it was sent. Messages without an acknowledgement stay in the spool. They are sent again after the next start, so Kafka may hold them twice."`

	Spool SpoolConfig `key:"spool"`
	Drain DrainConfig `key:"drain" live:"true"`
}

// Lanes says what a 200 means for events of each kind. A request with events of several kinds is answered when each
// event is as safe as its own lane asks.
type Lanes struct {
	Main           string `key:"main" doc:"Ack of ordinary events. Empty, here and below: delivery.ack counts."`
	Historical     string `key:"historical" doc:"Ack of events that a client marks as a migration of old ones."`
	Exceptions     string `key:"exceptions" doc:"Ack of $exception events."`
	Heatmaps       string `key:"heatmaps" doc:"Ack of $$heatmap events."`
	ClientWarnings string `key:"client_warnings" doc:"Ack of $$client_ingestion_warning events."`
	AI             string `key:"ai" doc:"Ack of AI events."`
	Recordings     string `key:"recordings" doc:"Ack of session recordings."`
	Logs           string `key:"logs" doc:"Ack of log records."`
}

// SpoolConfig configures the durable log in which events wait for Kafka.
type SpoolConfig struct {
	Dir          string           `key:"dir" doc:"Directory of the spool. One process at a time uses it. On Kubernetes it is on a volume that outlives the pod. A directory that other users can write to is refused; the service makes a missing one with the right mode."`
	MaxBytes     configs.ByteSize `key:"max_bytes" live:"true" doc:"Largest size of the spool. When it is reached, events are refused with 503."`
	Reserve      configs.ByteSize `key:"reserve" live:"true" doc:"Bytes of the disk that the spool leaves free."`
	SegmentBytes configs.ByteSize `key:"segment_bytes" doc:"Size of the files that the spool consists of. The spool frees space one file at a time."`
	UnreadyFill  float64          `key:"unready_fill" live:"true" doc:"How full the spool may be before the service is not ready and traffic goes elsewhere, as a fraction of the room that max_bytes and the disk give the spool. 1: the service stays ready."`
}

// DrainConfig configures how fast the spool is emptied.
type DrainConfig struct {
	Speed   float64          `key:"speed" doc:"The drain takes events from the spool at most so many times as fast as new events come in. A larger number empties the spool sooner, a smaller one leaves more of Kafka to live traffic."`
	MinRate configs.ByteSize `key:"min_rate" doc:"Bytes a second that the drain may take from the spool however few events come in."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Ack:         modeNames[modeAuto],
		Buffer:      64 * configs.MiB,
		SpoolAfter:  time.Second,
		Timeout:     10 * time.Second,
		StopTimeout: 5 * time.Second,
		Spool: SpoolConfig{
			Dir:          "./data/spool",
			MaxBytes:     10 * configs.GiB,
			Reserve:      256 * configs.MiB,
			SegmentBytes: 32 * configs.MiB,
			UnreadyFill:  0.9,
		},
		Drain: DrainConfig{Speed: 4, MinRate: 16 * configs.MiB},
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var faults configs.Faults
	check := func(key, text string) {
		_, known := parseMode(text)
		faults.Check(known, key, "must be %s, got %q", strings.Join(modeNames[:], ", "), text)
	}
	check("ack", c.Ack)
	for _, lane := range c.Lanes.named() {
		if lane.ack != "" {
			check("lanes."+lane.key, lane.ack)
		}
	}
	faults.Check(c.Buffer >= configs.MiB, "buffer", "must be at least 1MiB, got %s", c.Buffer)
	faults.Check(c.SpoolAfter > 0 && c.SpoolAfter < c.Timeout, "spool_after",
		"must be positive and less than timeout (%s), got %s", c.Timeout, c.SpoolAfter)
	faults.Check(c.Timeout >= 10*time.Millisecond, "timeout", "must be at least 10ms, got %s", c.Timeout)
	faults.Check(c.StopTimeout > 0, "stop_timeout", "must be positive, got %s", c.StopTimeout)
	faults.Check(c.Spool.Dir != "", "spool.dir", "must not be empty")
	faults.Check(c.Spool.SegmentBytes >= configs.MiB && c.Spool.SegmentBytes <= configs.GiB, "spool.segment_bytes",
		"must be from 1MiB to 1GiB, got %s", c.Spool.SegmentBytes)
	faults.Check(c.Spool.MaxBytes >= 2*c.Spool.SegmentBytes, "spool.max_bytes",
		"must hold at least two segments (%s), got %s", 2*c.Spool.SegmentBytes, c.Spool.MaxBytes)
	faults.Check(c.Spool.Reserve >= 0, "spool.reserve", "must not be negative, got %s", c.Spool.Reserve)
	faults.Check(c.Spool.UnreadyFill > 0 && c.Spool.UnreadyFill <= 1, "spool.unready_fill",
		"must be more than 0 and at most 1, got %v", c.Spool.UnreadyFill)
	faults.Check(c.Drain.Speed > 1, "drain.speed", "must be more than 1, or the spool is never empty, got %v",
		c.Drain.Speed)
	faults.Check(c.Drain.MinRate >= 64*configs.KiB, "drain.min_rate", "must be at least 64KiB, got %s", c.Drain.MinRate)
	return faults.Err()
}

// spoolCanBeKept checks the directory of the spool.
func spoolCanBeKept(set *configs.Set) error {
	own, err := configs.SectionOf[Config](set)
	if err != nil || own.Spool.Dir == "" {
		return err
	}
	var faults configs.Faults
	faults.CheckDir("delivery.spool.dir", own.Spool.Dir,
		"the service would run without a spool, and refuse events while Kafka is away")
	if err := private.Check(own.Spool.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) && faults.Err() == nil {
		faults.Addf("delivery.spool.dir", "%s", err)
	}
	return faults.Err()
}

// MemoryBudget implements configs.MemoryBudgeter.
func (c Config) MemoryBudget(*configs.Set, int64) int64 { return int64(c.Buffer) }

// StopBudget is how long stopping may take.
func (c Config) StopBudget() time.Duration { return c.StopTimeout }

type namedLane struct {
	lane     events.Lane
	key, ack string
}

func (l Lanes) named() []namedLane {
	return []namedLane{
		{events.LaneMain, "main", l.Main},
		{events.LaneHistorical, "historical", l.Historical},
		{events.LaneExceptions, "exceptions", l.Exceptions},
		{events.LaneHeatmaps, "heatmaps", l.Heatmaps},
		{events.LaneClientWarnings, "client_warnings", l.ClientWarnings},
		{events.LaneAI, "ai", l.AI},
		{events.LaneRecordings, "recordings", l.Recordings},
		{events.LaneLogs, "logs", l.Logs},
	}
}

// maxPending is how many bytes of records a log accepts while it writes an earlier group.
const maxPending = 32 << 20

// open opens the spool for this process alone. The spool tells onSync how long each fsync took; onSync may be nil.
func (c SpoolConfig) open(onSync func(time.Duration), log *zap.Logger) (*spool.Spool, error) {
	return spool.Open(spool.Config{
		Dir:          c.Dir,
		MaxBytes:     int64(c.MaxBytes),
		Reserve:      int64(c.Reserve),
		SegmentBytes: int64(c.SegmentBytes),
		MaxPending:   maxPending,
		OnSync:       onSync,
	}, log)
}

// mode is what a 200 means.
type mode uint8

const (
	modeKafka mode = iota
	modeSpool
	modeAuto
	modeMemory
	modeCount
)

var modeNames = [modeCount]string{"kafka", "spool", "auto", "memory"}

func (m mode) String() string { return modeNames[m] }

// stricter returns the mode of the two that promises more. Messages for one topic that come together take the same way,
// whatever their lanes ask, so that they keep their order.
func stricter(a, b mode) mode {
	if strictness[a] >= strictness[b] {
		return a
	}
	return b
}

var strictness = [modeCount]int{modeMemory: 0, modeSpool: 1, modeAuto: 2, modeKafka: 3}

func parseMode(text string) (mode, bool) {
	i := slices.Index(modeNames[:], text)
	return mode(max(i, 0)), i >= 0
}

// modes returns the mode of every lane; the lane is the index.
func (c Config) modes() ([]mode, error) {
	standard, known := parseMode(c.Ack)
	if !known {
		return nil, fmt.Errorf("delivery.ack: %q is not known", c.Ack)
	}
	modes := slices.Repeat([]mode{standard}, len(events.Lanes()))
	for _, lane := range c.Lanes.named() {
		if own, known := parseMode(lane.ack); known {
			modes[lane.lane] = own
		}
	}
	return modes, nil
}
