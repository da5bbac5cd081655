package delivery

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/produce"
)

func spoolCommand() module.Command {
	return module.Command{
		Name:  "spool",
		Short: "Look at the spool, check it, or empty it: status, verify, drain, move, drop",
		Long: `Works on the spool in delivery.spool.dir.

  capture spool status                     what waits, by topic; also while the service runs
  capture spool verify                     reads every record; exit code 1 if some cannot be read
  capture spool drain                      sends what waits to Kafka, as fast as that goes
  capture spool move --from OLD --to NEW   gives what waits for topic OLD to topic NEW, behind what waits there
  capture spool drop TOPIC                 forgets what waits for a topic: those events are lost

move is for a topic that was renamed, drop for one that is not wanted any more. Both say how many records that are, and
ask nothing; with --dry-run they change nothing. A move that was interrupted goes on when it is started again. Then some
records may be there twice, and none is lost. All but status are for when the service does not run.`,
		Flags: func(flags *pflag.FlagSet) {
			flags.String("from", "", "`TOPIC` whose events move gives to another")
			flags.String("to", "", "`TOPIC` that move gives them to")
			flags.Bool("dry-run", false, "say what move or drop would do, and do nothing")
		},
		Run: runSpool,
	}
}

func runSpool(use module.Invocation, cfg Config, d *Delivery) error {
	verb := ""
	if len(use.Args) > 0 {
		verb = use.Args[0]
	}
	switch {
	case verb == "drop" && len(use.Args) == 2:
		return drop(use, cfg.Spool, use.Args[1])
	case len(use.Args) != 1:
	case verb == "status":
		return lookAt(use, cfg, false)
	case verb == "verify":
		return lookAt(use, cfg, true)
	case verb == "drain":
		return drainNow(use, d)
	case verb == "move":
		return move(use, cfg.Spool)
	}
	return fmt.Errorf("spool wants status, verify, drain, move or drop TOPIC, got %q", use.Args)
}

// lookAt prints what is in the spool, after a look at the first record of each log or at all of them.
func lookAt(use module.Invocation, cfg Config, all bool) (err error) {
	opened, err := spool.Inspect(cfg.Spool.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	if opened.InUse() {
		if all {
			return errors.New("the service runs and uses the spool: it counts what it cannot read itself, in capture_delivery_corrupt_records_total")
		}
		if _, err := fmt.Fprintln(use.Out, "in use by a service that runs; what is below is of this moment"); err != nil {
			return fmt.Errorf("print the spool: %w", err)
		}
	}
	table := tabwriter.NewWriter(use.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "log\trecords\tbytes\tsince\tunreadable") //nolint:errcheck // Flush returns what went wrong
	unreadable := uint64(0)
	for _, log := range opened.Logs() {
		waiting := log.Stats().Records
		first, err := look(use.Context, log, all)
		if err != nil {
			return err
		}
		stats := log.Stats()
		since := "-"
		if !first.IsZero() {
			since = first.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%d\n", log.Name(), waiting, stats.Bytes, since, stats.CorruptRecords) //nolint:errcheck // as above
		unreadable += stats.CorruptRecords
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print the spool: %w", err)
	}
	if unreadable > 0 {
		return fmt.Errorf("%d records cannot be read: the service leaves them out, and counts them", unreadable)
	}
	return nil
}

// look returns the time of the log's first record, and reads the others too if it is to.
func look(ctx context.Context, log *spool.Log, all bool) (first time.Time, err error) {
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
		if !all {
			return first, nil
		}
	}
	return first, context.Cause(ctx)
}

// drainNow sends what waits to Kafka until there is nothing left or the user interrupts.
func drainNow(use module.Invocation, d *Delivery) (err error) {
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
	before := d.Waiting()
	report := time.NewTicker(time.Second)
	defer report.Stop()
	for d.waits() {
		select {
		case <-use.Context.Done():
			_, err := fmt.Fprintf(use.Out, "%d records are in Kafka, %d still wait\n", before-d.Waiting(), d.Waiting())
			return errors.Join(context.Cause(use.Context), err)
		case <-report.C:
			if _, err := fmt.Fprintf(use.Err, "%d records wait\n", d.Waiting()); err != nil {
				return fmt.Errorf("print progress: %w", err)
			}
		case <-time.After(drainPoll):
		}
	}
	_, err = fmt.Fprintf(use.Out, "%d records are in Kafka, none waits\n", before)
	return err
}

const (
	drainPoll = 10 * time.Millisecond
	// connectPatience is how long a command waits for Kafka.
	connectPatience = 15 * time.Second
)

// connect connects a producer for a command, for which no hooks run; the result disconnects it.
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

// openLog opens the spool, or looks at it if nothing is to be changed, and returns it with the log of the topic.
func openLog(cfg SpoolConfig, topic string, dry bool) (*spool.Spool, *spool.Log, error) {
	if !produce.IsTopicName(topic) {
		return nil, nil, fmt.Errorf("the name of a topic must be %s, got %q", produce.TopicNameRule, topic)
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
	return nil, nil, errors.Join(fmt.Errorf("the spool in %s has nothing of topic %q: see capture spool status", cfg.Dir, topic), opened.Close())
}

// openSpool opens the spool, which no other process may use then, or looks at it if nothing is to be changed.
func openSpool(cfg SpoolConfig, dry bool) (*spool.Spool, error) {
	if dry {
		return spool.Inspect(cfg.Dir)
	}
	return cfg.open(nil, zap.NewNop())
}

// drop removes the log of a topic.
func drop(use module.Invocation, cfg SpoolConfig, topic string) (err error) {
	dry, err := use.Flags.GetBool("dry-run")
	if err != nil {
		return fmt.Errorf("--dry-run: %w", err)
	}
	opened, log, err := openLog(cfg, topic, dry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	verb, records := "would be dropped", log.Stats().Records
	if !dry {
		verb = "are dropped"
		if records, err = opened.Drop(topic); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(use.Out, "%d records of topic %s %s\n", records, topic, verb)
	return err
}

// move gives the records of one topic to another.
func move(use module.Invocation, cfg SpoolConfig) (err error) {
	from, fault := use.Flags.GetString("from")
	to, fault2 := use.Flags.GetString("to")
	dry, fault3 := use.Flags.GetBool("dry-run")
	switch {
	case errors.Join(fault, fault2, fault3) != nil:
		return errors.Join(fault, fault2, fault3)
	case from == "" || to == "" || from == to:
		return fmt.Errorf("spool move wants --from TOPIC and --to another TOPIC, got %q and %q", from, to)
	case !produce.IsTopicName(to):
		return fmt.Errorf("--to: the name of a topic must be %s, got %q", produce.TopicNameRule, to)
	}
	opened, log, err := openLog(cfg, from, dry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	verb, records := "would be moved", log.Stats().Records
	if !dry {
		verb = "are moved"
		records, err = moveAll(use.Context, log, opened.Log(to))
	}
	_, printed := fmt.Fprintf(use.Out, "%d records of topic %s %s to topic %s\n", records, from, verb, to)
	if err = errors.Join(err, printed); err != nil || dry {
		return err
	}
	if unreadable := log.Stats().CorruptRecords; unreadable > 0 {
		err = fmt.Errorf("%d records cannot be read, and are left out", unreadable)
	}
	_, dropped := opened.Drop(from) // nothing is in it any more
	return errors.Join(err, dropped)
}

// moveAll appends the records of one log to another, as messages of the topic of that one, and returns how many those
// were. A record is marked as done when the other log has it. After a crash in between it is moved again, so that it is
// there twice.
func moveAll(ctx context.Context, from, to *spool.Log) (moved uint64, err error) {
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
		// An append that is given up may become durable all the same, and its records would come twice.
		if _, err := to.AppendExempt(context.WithoutCancel(ctx), payloads); err != nil {
			return moved, err
		}
		from.Done(seqs...)
		moved += uint64(len(seqs))
	}
	return moved, context.Cause(ctx)
}
