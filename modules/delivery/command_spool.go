package delivery

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/produce"
)

func spoolCommand() configs.Command {
	return configs.Command{
		Name:  "spool",
		Short: "Look at the spool, check it, or empty it: status, verify, drain",
		Long: `Works on the spool in delivery.spool.dir.

  capture spool status   what waits, by topic; also while the service runs
  capture spool verify   reads every record, while the service does not run; exit code 1 if some cannot be read
  capture spool drain    sends what waits to Kafka, as fast as that goes, while the service does not run`,
		Run: runSpool,
	}
}

func runSpool(use configs.Invocation, cfg Config, d *Delivery) error {
	verb := ""
	if len(use.Args) == 1 {
		verb = use.Args[0]
	}
	switch verb {
	case "status":
		return lookAt(use, cfg, false)
	case "verify":
		return lookAt(use, cfg, true)
	case "drain":
		return drainNow(use, d)
	default:
		return fmt.Errorf("spool wants status, verify or drain, got %q", use.Args)
	}
}

// lookAt prints what is in the spool, after a look at the first record of each log or at all of them.
func lookAt(use configs.Invocation, cfg Config, all bool) (err error) {
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
func drainNow(use configs.Invocation, d *Delivery) (err error) {
	end, err := connect(use.Context, d.producer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	d.rate.unlimited()
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
