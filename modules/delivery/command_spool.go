package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/produce"
)

func spoolCommand() module.Command {
	return module.Command{
		Use:   "spool",
		Short: "Look at the spool, check it, or empty it",
		Long: `Works on the spool in delivery.spool.dir, which keeps the messages that Kafka does not take. All
commands but status are for when the service does not run.`,
		Example:  "  capture spool status",
		Commands: []module.Command{statusCommand(), verifyCommand(), drainCommand(), moveCommand(), dropCommand()},
	}
}

func statusCommand() module.Command {
	return module.Command{
		Use: "status", Short: "Show what waits, by topic, also while the service runs",
		Example: "  capture spool status --output json",
		Output:  module.Table,
		Run:     func(use module.Invocation, cfg Config) error { return lookAt(use, cfg, false) },
	}
}

func verifyCommand() module.Command {
	return module.Command{
		Use: "verify", Short: "Read every record, and say whether all can be read",
		Long:    "Reads every record, and changes nothing. The exit code is 1 if some cannot be read.",
		Example: "  capture spool verify --config production.yaml",
		Output:  module.Table,
		Run:     func(use module.Invocation, cfg Config) error { return lookAt(use, cfg, true) },
	}
}

func drainCommand() module.Command {
	return module.Command{
		Use: "drain", Short: "Send what waits to Kafka, as fast as that goes",
		Long: `Sends the records that wait to Kafka, as fast as Kafka takes them. After an interrupt the other records
stay in the spool. The service does the same by itself when it starts; this command is for a spool whose service is not
to start again.`,
		Example: "  capture spool drain --config production.yaml",
		Run:     drainNow,
	}
}

func moveCommand() module.Command {
	var m move
	return module.Command{
		Use: "move", Short: "Give what waits for one topic to another",
		Long: `Gives the records that wait for one topic to another topic, behind the records that wait there: for a
topic that was renamed. It says how many records it has moved, and asks nothing. To finish a move that was interrupted,
start it again. Then some records may be there twice, and none is lost.`,
		Example: "  capture spool move --from events --to clickhouse_events --dry-run",
		Flags: func(flags *module.Flags) {
			flags.StringVar(&m.from, "from", "", "`TOPIC` whose events are given away")
			flags.StringVar(&m.to, "to", "", "`TOPIC` that gets them")
			flags.BoolVar(&m.dry, "dry-run", false, "say what would be done, and do nothing")
		},
		Values: map[string]any{
			"from": spooledTopics,
			"to":   func(settings produce.Settings) ([]string, error) { return settings.Topics.Names(), nil },
		},
		Run: func(use module.Invocation, cfg Config) error { return m.run(use, cfg.Spool) },
	}
}

func dropCommand() module.Command {
	var dry bool
	return module.Command{
		Use: "drop TOPIC", Short: "Forget what waits for a topic: those events are lost",
		Long: `Forgets the records that wait for a topic that nobody wants any more: their events are lost. It says how
many records it has dropped, and asks nothing.`,
		Example: "  capture spool drop events --dry-run",
		Flags: func(flags *module.Flags) {
			flags.BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
		},
		Values: map[string]any{"TOPIC": spooledTopics},
		Run:    func(use module.Invocation, cfg Config) error { return drop(use, cfg.Spool, use.Args[0], dry) },
	}
}

// spooledTopics returns the topics that have a log in the spool.
func spooledTopics(cfg Config) (topics []string, err error) {
	opened, err := spool.Inspect(cfg.Spool.Dir)
	if err != nil {
		return nil, err
	}
	for _, log := range opened.Logs() {
		if log.Name() != deadLetterLog {
			topics = append(topics, log.Name())
		}
	}
	return topics, opened.Close()
}

// logStatus is what status and verify print of a log.
type logStatus struct {
	Log     string `json:"log"`
	Records uint64 `json:"records"`
	Bytes   int64  `json:"bytes"`
	// Since is when the oldest record came; nil if there is none.
	Since      *time.Time `json:"since,omitempty"`
	Unreadable uint64     `json:"unreadable"`
	// InUse says whether a running service uses the spool.
	InUse bool `json:"in_use"`
}

// lookAt prints what is in the spool. It reads the first chunk of each log or, if all is set, every record.
func lookAt(use module.Invocation, cfg Config, all bool) (err error) {
	if err := isThere(cfg.Spool); err != nil {
		return err
	}
	opened, err := spool.Inspect(cfg.Spool.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	inUse := opened.InUse()
	if inUse && all {
		return errors.New("the service runs and uses the spool: it counts what it cannot read itself, " +
			"in capture_delivery_corrupt_records_total")
	}
	progress := use.Progress("records read")
	defer progress.End()
	var total, read uint64
	for _, log := range opened.Logs() {
		total += log.Stats().Records
	}
	list := use.List("log", "records", "size", "since", "unreadable")
	waiting, unreadable := uint64(0), uint64(0)
	for _, log := range opened.Logs() {
		status := logStatus{Log: log.Name(), Records: log.Stats().Records, InUse: inUse}
		first, err := look(use.Context, log, all, func(records int) {
			read += uint64(records)
			progress.Set(read, total)
		})
		if err != nil {
			return err
		}
		since := ""
		if !first.IsZero() {
			first = first.UTC()
			status.Since, since = &first, first.Format(time.RFC3339)
		}
		stats := log.Stats()
		status.Bytes, status.Unreadable = stats.Bytes, stats.CorruptRecords
		progress.Clear()
		size := configs.ByteSize(status.Bytes).Approx()
		if err := list.Add(status, status.Log, status.Records, size, since, status.Unreadable); err != nil {
			return err
		}
		unreadable += status.Unreadable
		if status.Log != deadLetterLog {
			waiting += status.Records
		}
	}
	progress.End()
	if err := list.Flush(); err != nil {
		return err
	}
	switch {
	case unreadable > 0:
		return fmt.Errorf("%d records cannot be read: the service leaves them out, and counts them", unreadable)
	case inUse:
		use.Hint("a service runs and uses the spool: it sends what waits as soon as Kafka takes it")
	case waiting > 0:
		use.Hint("next: start the service or capture spool drain to send it; " +
			"capture spool move gives it to another topic")
	}
	return nil
}

// isThere returns an error if no service has ever kept a spool in the directory.
func isThere(cfg SpoolConfig) error {
	if err := spool.IsThere(cfg.Dir); err != nil {
		return fmt.Errorf("delivery.spool.dir: %w: give the --config of the service, and run this where the service "+
			"runs", err)
	}
	return nil
}

// look returns the time of the log's first record. If all is set, it reads the other records too. It calls read with
// the number of records after each chunk.
func look(ctx context.Context, log *spool.Log, all bool, read func(records int)) (first time.Time, err error) {
	var chunk spool.Chunk
	var m produce.Message
	for ctx.Err() == nil {
		if err := log.Read(&chunk, chunkBytes); err != nil {
			return first, err
		}
		if len(chunk.Records) == 0 {
			return first, nil
		}
		for _, record := range chunk.Records {
			if err := readRecord(record.Payload, &m); err != nil {
				return first, fmt.Errorf("log %s, record %d: %w", log.Name(), record.Seq, err)
			}
			if first.IsZero() {
				first = m.Time
			}
		}
		read(len(chunk.Records))
		if !all {
			return first, nil
		}
	}
	return first, context.Cause(ctx)
}

// drainNow sends the records of the spool to Kafka until none is left or the user interrupts.
func drainNow(use module.Invocation, d *Delivery) (err error) {
	if err := isThere(d.cfg.Spool); err != nil {
		return err
	}
	progress := use.Progress("records sent")
	defer progress.End()
	end, err := connect(use.Context, d.producer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	d.rate.unlimited = true
	if err := d.spooling.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Stop(context.WithoutCancel(use.Context))) }()
	for before := d.spooling.found; ; {
		waiting := d.Waiting()
		progress.Set(before-min(before, waiting), before)
		if !d.waits() {
			progress.End()
			_, err = fmt.Fprintf(use.Out, "%d records are in Kafka, none waits\n", before)
			return err
		}
		select {
		case <-use.Context.Done():
			progress.End()
			_, err := fmt.Fprintf(use.Out, "%d records are in Kafka, %d still wait\n", before-d.Waiting(), d.Waiting())
			return errors.Join(context.Cause(use.Context), err)
		case <-time.After(drainPoll):
		}
	}
}

const (
	drainPoll = 10 * time.Millisecond
	// connectPatience is how long a command waits for Kafka.
	connectPatience = 15 * time.Second
)

// connect connects a producer for a command, for which no hooks run. end disconnects it.
func connect(ctx context.Context, producer produce.Producer) (end func() error, err error) {
	end = func() error { return producer.Stop(context.WithoutCancel(ctx)) }
	if err := producer.Start(ctx); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(connectPatience); ; {
		if err = producer.Ready(); err == nil {
			return end, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, errors.Join(err, end())
		}
		select {
		case <-ctx.Done():
		case <-time.After(drainPoll):
		}
	}
}

// openLog opens the spool, and returns it with the log of the topic. With dry set it opens the spool for reading only.
func openLog(cfg SpoolConfig, topic string, dry bool) (*spool.Spool, *spool.Log, error) {
	if !produce.IsTopicName(topic) {
		return nil, nil, module.Misusef("the name of a topic must be %s, got %q", produce.TopicNameRule, topic)
	}
	if err := isThere(cfg); err != nil {
		return nil, nil, err
	}
	opened, err := openSpool(cfg, dry)
	if err != nil {
		return nil, nil, err
	}
	for _, log := range opened.Logs() {
		if log.Name() == topic {
			return opened, log, nil
		}
	}
	err = fmt.Errorf("the spool in %s has nothing of topic %q: see capture spool status", cfg.Dir, topic)
	return nil, nil, errors.Join(err, opened.Close())
}

// openSpool opens the spool for this process alone. With dry set it opens the spool for reading only.
func openSpool(cfg SpoolConfig, dry bool) (*spool.Spool, error) {
	if dry {
		return spool.Inspect(cfg.Dir)
	}
	return cfg.open(nil, zap.NewNop())
}

// drop removes the log of a topic.
func drop(use module.Invocation, cfg SpoolConfig, topic string, dry bool) (err error) {
	progress := use.Progress("records dropped")
	defer progress.End()
	opened, log, err := openLog(cfg, topic, dry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	verb, records := "would be dropped", log.Stats().Records
	if !dry {
		progress.Set(0, records)
		verb = "are dropped"
		if records, err = opened.Drop(topic); err != nil {
			return err
		}
	}
	progress.End()
	_, err = fmt.Fprintf(use.Out, "%d records of topic %s %s\n", records, topic, verb)
	return err
}

// move gives the records of one topic to another.
type move struct {
	from, to string
	dry      bool
}

func (m move) run(use module.Invocation, cfg SpoolConfig) (err error) {
	switch {
	case m.from == "" || m.to == "" || m.from == m.to:
		return module.Misusef("it wants --from TOPIC and --to another TOPIC, got %q and %q", m.from, m.to)
	case !produce.IsTopicName(m.to):
		return module.Misusef("--to: the name of a topic must be %s, got %q", produce.TopicNameRule, m.to)
	}
	progress := use.Progress("records moved")
	defer progress.End()
	opened, log, err := openLog(cfg, m.from, m.dry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	verb, records := "would be moved", log.Stats().Records
	if !m.dry {
		verb = "are moved"
		records, err = moveAll(use.Context, log, opened.Log(m.to), progress)
	}
	progress.End()
	_, printed := fmt.Fprintf(use.Out, "%d records of topic %s %s to topic %s\n", records, m.from, verb, m.to)
	if err = errors.Join(err, printed); err != nil || m.dry {
		return err
	}
	if unreadable := log.Stats().CorruptRecords; unreadable > 0 {
		err = fmt.Errorf("%d records cannot be read, and are left out", unreadable)
	}
	_, dropped := opened.Drop(m.from) // no record is left in it
	return errors.Join(err, dropped)
}

// moveAll appends the records of one log to another, as messages of that log's topic, and returns how many it has
// moved. It marks a record as done once the other log has it. A crash between the two steps leaves the record in both
// logs, and the next move appends it again.
func moveAll(ctx context.Context, from, to *spool.Log, progress *module.Progress) (moved uint64, err error) {
	total := from.Stats().Records
	var chunk spool.Chunk
	var m produce.Message
	for ctx.Err() == nil {
		if err := from.Read(&chunk, chunkBytes); err != nil {
			return moved, err
		}
		if len(chunk.Records) == 0 {
			return moved, nil
		}
		payloads, seqs := make([][]byte, len(chunk.Records)), make([]uint64, len(chunk.Records))
		for i, record := range chunk.Records {
			if err := readRecord(record.Payload, &m); err != nil {
				return moved, fmt.Errorf("record %d: %w", record.Seq, err)
			}
			m.Topic = to.Name()
			payloads[i], seqs[i] = appendRecord(nil, &m, m.Time), record.Seq
		}
		// An append that is given up may become durable all the same, and a later move would append its records again.
		if _, err := to.AppendExempt(context.WithoutCancel(ctx), payloads); err != nil {
			return moved, err
		}
		from.Done(seqs...)
		moved += uint64(len(seqs))
		progress.Set(moved, total)
	}
	return moved, context.Cause(ctx)
}
