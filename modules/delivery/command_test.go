package delivery_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
)

// run runs a command line and returns what it prints.
func run(t *testing.T, c *cluster, cfg delivery.Config, command module.Command, line ...string) (string, error) {
	t.Helper()
	out := new(bytes.Buffer)
	flags := pflag.NewFlagSet(command.Name, pflag.ContinueOnError)
	if command.Flags != nil {
		command.Flags(flags)
	}
	require.NoError(t, flags.Parse(line))
	use := module.Invocation{Context: t.Context(), Args: flags.Args(), Flags: flags, Out: out, Err: out}
	producer, stop := c.newProducer(c.clientConfig())
	defer stop()
	var err error
	switch command.Name {
	case "spool":
		d, fault := delivery.NewDelivery(configs.Fixed(cfg), settings(), producer, logger(t), tally.NoopScope)
		require.NoError(t, fault)
		delivery.Hurry(d)
		err = delivery.RunSpool(use, cfg, d)
	case "dlq":
		err = delivery.RunDLQ(use, cfg, settings(), producer, c.reader())
	}
	return out.String(), err
}

func onSpool(t *testing.T, c *cluster, cfg delivery.Config, line ...string) (string, error) {
	t.Helper()
	return run(t, c, cfg, delivery.SpoolCommand(), line...)
}

func onDLQ(t *testing.T, c *cluster, cfg delivery.Config, line ...string) (string, error) {
	t.Helper()
	return run(t, c, cfg, delivery.DLQCommand(), line...)
}

func TestSpoolStatusVerifyAndDrain(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	out, err := onSpool(t, c, cfg, "status")
	require.NoError(t, err)
	require.Equal(t, "log  records  bytes  since  unreadable\n", out)

	mend := c.fail("", away)
	s := c.start(cfg)
	requireSafe(t, s.write(numbered(0, 200)...), events.AckSpool)
	out, err = onSpool(t, c, cfg, "status")
	require.NoError(t, err)
	require.Contains(t, out, "in use by a service that runs")
	require.Regexp(t, `main +200 +\d+ +\d{4}-\d\d-\d\dT\S+Z +0\n`, out)
	_, err = onSpool(t, c, cfg, "verify")
	require.ErrorContains(t, err, "the service runs and uses the spool")
	for _, line := range [][]string{{"drain"}, {"drop", mainTopic}, {"move", "--from", mainTopic, "--to", "new"}} {
		_, err = onSpool(t, c, cfg, line...)
		require.ErrorContains(t, err, "another process uses this directory")
	}
	s.stop()

	before := files(t, cfg.Spool.Dir)
	out, err = onSpool(t, c, cfg, "verify")
	require.NoError(t, err)
	require.Regexp(t, `main +200 +\d+ +\S+ +0\n`, out)
	require.Equal(t, before, files(t, cfg.Spool.Dir), "nothing is changed by looking")

	mend()
	out, err = onSpool(t, c, cfg, "drain")
	require.NoError(t, err)
	require.Contains(t, out, "200 records are in Kafka, none waits")
	require.Equal(t, numbered(0, 200), c.names(mainTopic))

	for _, line := range [][]string{{}, {"empty"}, {"status", "main"}, {"drop"}, {"drop", "a", "b"}} {
		_, err = onSpool(t, c, cfg, line...)
		require.ErrorContains(t, err, "spool wants status, verify, drain, move or drop TOPIC")
	}
}

// files returns the content of all files, by name.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found[path] = string(content)
		return err
	}))
	return found
}

// spooled leaves events in the spool, and no process.
func spooled(t *testing.T, c *cluster, cfg delivery.Config, batches ...*events.Batch) {
	t.Helper()
	mend := c.fail("", away)
	defer mend()
	s := c.start(cfg)
	for _, batch := range batches {
		requireSafe(t, s.writeBatch(batch), events.AckSpool)
	}
	s.stop()
}

func TestSpoolVerifyTellsOfRecordsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	spooled(t, c, cfg, batchOf(events.LaneMain, numbered(0, 20)...))
	segments, err := filepath.Glob(filepath.Join(cfg.Spool.Dir, mainTopic, "*.log"))
	require.NoError(t, err)
	require.Len(t, segments, 1)
	content, err := os.ReadFile(segments[0])
	require.NoError(t, err)
	content[bytes.Index(content, []byte("e00007"))] ^= 1
	require.NoError(t, os.WriteFile(segments[0], content, 0o600))

	out, err := onSpool(t, c, cfg, "verify")
	require.EqualError(t, err, "1 records cannot be read: the service leaves them out, and counts them")
	require.Regexp(t, `main +20 +\d+ +\S+ +1\n`, out)

	_, err = onSpool(t, c, cfg, "drain")
	require.NoError(t, err)
	require.Equal(t, append(numbered(0, 7), numbered(8, 12)...), c.names(mainTopic))
}

func TestSpoolMoveGivesTheEventsOfATopicToAnother(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	large := batchOf(events.LaneMain, numbered(0, 50)...)
	for i := range large.Events {
		pad(&large.Events[i], 20_000) // so that it takes several steps
	}
	require.Greater(t, 50*20_000, 2*int(delivery.Chunk))
	spooled(t, c, cfg, batchOf(events.LaneExceptions, "first"), large)

	before := files(t, cfg.Spool.Dir)
	out, err := onSpool(t, c, cfg, "move", "--from", mainTopic, "--to", exceptionsTopic, "--dry-run")
	require.NoError(t, err)
	require.Equal(t, "50 records of topic main would be moved to topic exceptions\n", out)
	require.Equal(t, before, files(t, cfg.Spool.Dir))

	out, err = onSpool(t, c, cfg, "move", "--from", mainTopic, "--to", exceptionsTopic)
	require.NoError(t, err)
	require.Equal(t, "50 records of topic main are moved to topic exceptions\n", out)
	out, err = onSpool(t, c, cfg, "status")
	require.NoError(t, err)
	require.NotContains(t, out, mainTopic)

	s := c.start(cfg)
	s.requireArrived(c, exceptionsTopic, append([]string{"first"}, numbered(0, 50)...)...)
	require.Empty(t, c.names(mainTopic))
	requireSafe(t, s.write("a"), events.AckKafka)
}

// Move passes the limits, since it frees as much as it takes.
func TestSpoolMoveOfAFullSpool(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := small(config(t, "auto"))
	s := c.start(cfg)
	mend := c.fail(mainTopic, away)
	accepted := s.fillUp(events.LaneMain)
	s.stop()
	mend()
	_, err := onSpool(t, c, cfg, "move", "--from", mainTopic, "--to", recordingsTopic)
	require.NoError(t, err)
	s = c.start(cfg)
	s.requireArrived(c, recordingsTopic, accepted...)
}

// A crash comes between the append to the one log and the mark in the other.
func TestSpoolMoveThatIsInterruptedLosesNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	spooled(t, c, cfg, batchOf(events.LaneMain, numbered(0, 10)...))
	source := filepath.Join(cfg.Spool.Dir, mainTopic)
	before := files(t, source)
	_, err := onSpool(t, c, cfg, "move", "--from", mainTopic, "--to", exceptionsTopic)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(source, 0o700))
	for path, content := range before { // as if nothing had been marked
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	out, err := onSpool(t, c, cfg, "move", "--from", mainTopic, "--to", exceptionsTopic)
	require.NoError(t, err)
	require.Contains(t, out, "10 records")
	s := c.start(cfg)
	s.drained()
	names := c.names(exceptionsTopic)
	require.Len(t, names, 20)
	require.Equal(t, numbered(0, 10), uniqued(names))
}

func TestSpoolMoveKeepsWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	spooled(t, c, cfg, batchOf(events.LaneMain, "a"))
	appendRecords(t, cfg, mainTopic, []byte{99, 1, 2, 3})
	out, err := onSpool(t, c, cfg, "move", "--from", mainTopic, "--to", exceptionsTopic)
	require.ErrorContains(t, err, "record 2: the record is not one of this version of the service")
	require.Equal(t, "1 records of topic main are moved to topic exceptions\n", out)
	out, err = onSpool(t, c, cfg, "drop", mainTopic, "--dry-run")
	require.NoError(t, err)
	require.Equal(t, "1 records of topic main would be dropped\n", out)
}

func TestSpoolDropForgetsATopic(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	spooled(t, c, cfg, batchOf(events.LaneMain, numbered(0, 30)...), batchOf(events.LaneExceptions, "x"))
	before := files(t, cfg.Spool.Dir)
	out, err := onSpool(t, c, cfg, "drop", mainTopic, "--dry-run")
	require.NoError(t, err)
	require.Equal(t, "30 records of topic main would be dropped\n", out)
	require.Equal(t, before, files(t, cfg.Spool.Dir))
	out, err = onSpool(t, c, cfg, "drop", mainTopic)
	require.NoError(t, err)
	require.Equal(t, "30 records of topic main are dropped\n", out)
	require.NoDirExists(t, filepath.Join(cfg.Spool.Dir, mainTopic))
	s := c.start(cfg)
	s.requireArrived(c, exceptionsTopic, "x")
	require.Empty(t, c.names(mainTopic))
	requireSafe(t, s.write("a"), events.AckKafka)
}

func TestWhatIsWrongWithASpoolCommandIsSaid(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	spooled(t, c, cfg, batchOf(events.LaneMain, "a"))
	appendRecords(t, cfg, "@dead-letters", []byte{99})
	for message, line := range map[string][]string{
		"spool move wants --from TOPIC and --to another TOPIC":     {"move", "--from", mainTopic},
		`got "main" and "main"`:                                    {"move", "--from", mainTopic, "--to", mainTopic},
		"--to: the name of a topic must be":                        {"move", "--from", mainTopic, "--to", "a/b"},
		`the name of a topic must be 1 to 249`:                     {"move", "--from", "@dead-letters", "--to", mainTopic},
		`, got "@dead-letters"`:                                    {"drop", "@dead-letters"},
		`has nothing of topic "other": see capture spool status`:   {"drop", "other"},
		`has nothing of topic "another": see capture spool status`: {"move", "--from", "another", "--to", mainTopic},
	} {
		_, err := onSpool(t, c, cfg, line...)
		require.ErrorContains(t, err, message)
	}
	out, err := onSpool(t, c, cfg, "drop", mainTopic, "--dry-run")
	require.NoError(t, err)
	require.Contains(t, out, "1 records")
}

// leaveTwo leaves one dead letter in the topic and one on the disk.
func leaveTwo(t *testing.T, c *cluster, cfg delivery.Config) {
	t.Helper()
	s := c.start(cfg)
	requireSafe(t, s.write("fine"), events.AckKafka)
	mend := c.fail(mainTopic, kerr.MessageTooLarge)
	requireSafe(t, s.write("one"), events.AckKafka)
	also := c.fail(deadTopic, kerr.InvalidRecord)
	requireSafe(t, s.write("both"), events.AckSpool)
	s.stop()
	mend()
	also()
}

// letter is what the commands print of a dead letter.
type letter struct {
	ID, Reason, Topic string
	Key               *string
	Headers           map[string]string
	Value             json.RawMessage
}

func TestDeadLettersAreListedShownAndReplayed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	leaveTwo(t, c, cfg)

	out, err := onDLQ(t, c, cfg, "list")
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 2)
	var onDisk, inTopic letter
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &onDisk))
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &inTopic))
	require.Equal(t, "disk/1", onDisk.ID)
	require.Equal(t, "too_large", onDisk.Reason)
	require.Equal(t, mainTopic, onDisk.Topic)
	require.Regexp(t, `^dead/\d/0$`, inTopic.ID)
	require.Nil(t, inTopic.Value)

	out, err = onDLQ(t, c, cfg, "show", "--filter", "event=one", "--filter", "topic=main")
	require.NoError(t, err)
	var shown letter
	require.NoError(t, json.Unmarshal([]byte(out), &shown))
	require.Contains(t, string(shown.Value), `"event":"one"`)
	require.Equal(t, "phc_test:user", *shown.Key)
	require.Equal(t, "delivery", shown.Headers["dlq_step"])

	out, err = onDLQ(t, c, cfg, "replay", "--dry-run")
	require.NoError(t, err)
	require.Equal(t, "disk/1 would be sent to main\n"+inTopic.ID+" would be sent to main\n"+
		"2 dead letters would be sent, 0 were refused again, 0 do not say where they were meant to go\n", out)
	require.Equal(t, []string{"fine"}, c.names(mainTopic))

	mend := c.fail(mainTopic, kerr.MessageTooLarge)
	out, err = onDLQ(t, c, cfg, "replay")
	require.ErrorContains(t, err, "2 dead letters were refused again")
	require.Contains(t, out, "disk/1 to main: refused again")
	mend()

	_, err = onDLQ(t, c, cfg, "replay", "--filter", "event=both")
	require.NoError(t, err)
	require.Equal(t, []string{"fine", "both"}, c.names(mainTopic))
	for _, header := range c.messages(mainTopic)[1].Headers {
		require.NotContains(t, string(header.Key), "dlq", "it is as it was before it died")
	}
	out, err = onDLQ(t, c, cfg, "list", "--filter", "event=both")
	require.NoError(t, err)
	require.Empty(t, out, "what was on the disk and is replayed is gone")
}

func TestAReplayWhileTheServiceRunsLeavesTheDiskAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	leaveTwo(t, c, cfg)
	c.start(cfg)
	out, err := onDLQ(t, c, cfg, "replay")
	require.ErrorContains(t, err, "dead letters on the disk: ")
	require.ErrorContains(t, err, "another process uses this directory")
	require.Regexp(t, `dead/\d/0 sent to main`, out)
	require.Equal(t, []string{"fine", "one"}, c.names(mainTopic))
}

func TestWhatIsWrongWithADLQCommandIsSaid(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	for message, line := range map[string][]string{
		"dlq wants list, show or replay":                   {"forget"},
		"--filter wants KEY=VALUE, got \"reason\"":         {"list", "--filter", "reason"},
		"--filter: \"color\" is not one of id":             {"list", "--filter", "color=red"},
		"--filter since: \"yesterday\" is not a time such": {"list", "--filter", "since=yesterday"},
	} {
		_, err := onDLQ(t, c, cfg, line...)
		require.ErrorContains(t, err, message)
	}
}

// appendRecords adds records to a log, as another version of the service could have.
func appendRecords(t *testing.T, cfg delivery.Config, log string, records ...[]byte) {
	t.Helper()
	opened, err := spool.Open(spool.Config{Dir: cfg.Spool.Dir, MaxBytes: 1 << 30, SegmentBytes: 1 << 20, MaxPending: 1 << 20}, logger(t))
	require.NoError(t, err)
	_, err = opened.Log(log).Append(t.Context(), records)
	require.NoError(t, err)
	require.NoError(t, opened.Close())
}
