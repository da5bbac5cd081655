package delivery_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/modules/terminal"
)

// below returns the command of that name below another command.
func below(t *testing.T, command module.Command, name string) module.Command {
	t.Helper()
	i := slices.IndexFunc(command.Commands, func(c module.Command) bool { return strings.Fields(c.Use)[0] == name })
	require.GreaterOrEqual(t, i, 0, "%s has no command %s", command.Use, name)
	return command.Commands[i]
}

// run runs a command line and returns what the command prints as its result, and what it prints for people only. The
// line begins with the name of a command below the given one.
func run(
	t *testing.T, c *cluster, cfg delivery.Config, command module.Command, line ...string,
) (printed, said string, err error) {
	t.Helper()
	command = below(t, command, line[0])
	out, hints := new(bytes.Buffer), new(bytes.Buffer)
	use := module.Invocation{Context: t.Context(), Output: command.Output, Out: out, Err: hints}
	flags := pflag.NewFlagSet(line[0], pflag.ContinueOnError)
	flags.StringVar(&use.Output, "output", command.Output, "")
	if command.Flags != nil {
		command.Flags(flags)
	}
	require.NoError(t, flags.Parse(line[1:]))
	use.Args = flags.Args()
	producer, stop := c.newProducer(c.clientConfig())
	defer stop()
	switch run := command.Run.(type) {
	case func(module.Invocation, delivery.Config) error:
		err = run(use, cfg)
	case func(module.Invocation, *delivery.Delivery) error:
		d, fault := delivery.NewDelivery(configs.Fixed(cfg), settings(), producer, logger(t), tally.NoopScope)
		require.NoError(t, fault)
		delivery.Hurry(d)
		err = run(use, d)
	case func(module.Invocation, delivery.Config, produce.Settings, produce.Reader) error:
		err = run(use, cfg, settings(), c.reader())
	case func(module.Invocation, delivery.Config, produce.Settings, produce.Producer, produce.Reader) error:
		err = run(use, cfg, settings(), producer, c.reader())
	default:
		require.Fail(t, "the test does not know what the command takes", "%T", run)
	}
	return out.String(), hints.String(), err
}

func onSpool(t *testing.T, c *cluster, cfg delivery.Config, line ...string) (string, error) {
	t.Helper()
	out, hints, err := run(t, c, cfg, delivery.SpoolCommand(), line...)
	return out + hints, err
}

// progressLine is a line that only a slow machine prints.
var progressLine = regexp.MustCompile(`(?m)^\d+ dead letters (found|sent), \d+s\n`)

func onDLQ(t *testing.T, c *cluster, cfg delivery.Config, line ...string) (string, error) {
	t.Helper()
	out, hints, err := run(t, c, cfg, delivery.DLQCommand(), line...)
	return out + progressLine.ReplaceAllString(hints, ""), err
}

func TestSpoolStatusVerifyAndDrain(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	mend := c.fail("", away)
	s := c.start(cfg)
	out, err := onSpool(t, c, cfg, "status")
	require.NoError(t, err)
	require.Equal(t, "log  records  size  since  unreadable\n"+
		"a service runs and uses the spool: it sends what waits as soon as Kafka takes it\n", out)
	requireSafe(t, s.write(numbered(0, 200)...), events.AckSpool)
	out, err = onSpool(t, c, cfg, "status")
	require.NoError(t, err)
	require.Contains(t, out, "a service runs and uses the spool")
	require.Regexp(t, `main +200 +[\d.]+[KM]iB +\d{4}-\d\d-\d\dT\S+Z +0\n`, out)
	out, err = onSpool(t, c, cfg, "status", "--output", "json")
	require.NoError(t, err)
	var status struct {
		Log                        string
		Records, Bytes, Unreadable int
		Since                      time.Time
		InUse                      bool `json:"in_use"`
	}
	object, _, _ := strings.Cut(out, "\n")
	require.NoError(t, json.Unmarshal([]byte(object), &status))
	require.Equal(t, mainTopic, status.Log)
	require.Equal(t, 200, status.Records)
	require.Greater(t, status.Bytes, 200)
	require.WithinDuration(t, time.Now(), status.Since, patience)
	require.True(t, status.InUse)
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
	require.Regexp(t, `main +200 +[\d.]+[KM]iB +\S+ +0\n`, out)
	require.Contains(t, out, "next: start the service or capture spool drain to send it")
	require.Equal(t, before, files(t, cfg.Spool.Dir), "nothing is changed by looking")

	mend()
	out, err = onSpool(t, c, cfg, "drain")
	require.NoError(t, err)
	require.Contains(t, out, "200 records are in Kafka, none waits")
	require.Equal(t, numbered(0, 200), c.names(mainTopic))
}

// files returns the content of all files below a directory, by path.
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

// spooled leaves events in the spool, without a process that has the spool open.
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

// Nothing waits in a directory that is not the service's, and the events that wait elsewhere are not to be forgotten.
func TestASpoolCommandInAWrongDirectorySaysSo(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	open := t.TempDir()
	require.NoError(t, os.Chmod(open, 0o777))
	for name, wrong := range map[string]struct{ dir, want string }{
		"missing": {filepath.Join(t.TempDir(), "data", "spool"), "there is no directory /"},
		"empty":   {t.TempDir(), "holds no spool"},
		"open":    {open, "all users of this machine can write to"},
	} {
		cfg := config(t, "auto")
		cfg.Spool.Dir = wrong.dir
		for _, line := range [][]string{
			{"status"}, {"status", "--output", "json"}, {"verify"}, {"drain"}, {"drop", mainTopic},
			{"move", "--from", mainTopic, "--to", "new", "--dry-run"},
		} {
			out, err := onSpool(t, c, cfg, line...)
			require.ErrorContains(t, err, wrong.want, "%s: %s", name, line)
			require.ErrorContains(t, err, wrong.dir)
			require.ErrorContains(t, err, "give the --config of the service")
			require.Empty(t, out)
		}
		out, err := onDLQ(t, c, cfg, "list")
		require.NoError(t, err, "dead letters in Kafka are listed")
		require.Contains(t, out, "dead letters on the disk are not looked for: ")
		require.Contains(t, out, wrong.want)
	}
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
	require.Regexp(t, `main +20 +[\d.]+KiB +\S+ +1\n`, out)

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
		pad(&large.Events[i], 20_000) // so that the move takes several steps
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

// A move passes the limits, since it frees as many bytes as it takes.
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

// A crash comes between the append to the second log and the mark in the first.
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
	for path, content := range before { // as if no record had been marked
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
		"it wants --from TOPIC and --to another TOPIC": {"move", "--from", mainTopic},
		`got "main" and "main"`:                        {"move", "--from", mainTopic, "--to", mainTopic},
		"--to: the name of a topic must be":            {"move", "--from", mainTopic, "--to", "a/b"},
		`the name of a topic must be 1 to 249`: {
			"move", "--from", "@dead-letters", "--to", mainTopic,
		},
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

// letter is a dead letter as the commands print it.
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
	require.Regexp(t, `^id +time +reason +topic +token +distinct_id +event +size
disk/1 +\S+Z  too_large +main +phc_test +user +both +\d+B
dead/\d/0 +\S+Z  too_large +main +phc_test +user +one +\d+B
$`, out)
	out, err = onDLQ(t, c, cfg, "list", "--output", "json")
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
		"2 dead letters would be sent, 0 were refused again, 0 skipped\n", out)
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
	out, err = onDLQ(t, c, cfg, "list", "--filter", "event=both", "--output", "json")
	require.NoError(t, err)
	require.Empty(t, out, "what was on the disk and is replayed is gone")
}

// dead writes dead letters into their topic, as another program could have done.
func dead(t *testing.T, c *cluster, letters ...produce.Message) {
	t.Helper()
	producer, stop := c.newProducer(c.clientConfig())
	defer stop()
	require.NoError(t, producer.Start(t.Context()))
	eventually(t, func() bool { return producer.Ready() == nil })
	for i := range letters {
		letters[i].Topic = deadTopic
		done := make(chan error, 1)
		producer.Produce(letters[i:i+1:i+1], func(_ int, err error) { done <- err })
		require.NoError(t, <-done)
	}
}

// meantFor returns the headers of a dead letter that was meant for a topic.
func meantFor(topic string) []produce.Header {
	return []produce.Header{{Key: []byte("dlq_topic"), Value: []byte(topic)}}
}

func TestEveryLineAboutDeadLettersIsJSONWhateverTheyHold(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	values := []string{
		`{"big":12345678901234567890, "html":"<b>", "line":"a\u2028b"}`, "{\"raw\":\"\x7f\u202e\u2028\"}",
		"no JSON: \a\v\x1b[31m \"\\", "\xff\x00", "{\"invalid\":\"\xff\"}", "",
	}
	// normal writes JSON in one way.
	normal := func(text string) string {
		var value map[string]json.RawMessage
		if !utf8.ValidString(text) || json.Unmarshal([]byte(text), &value) != nil {
			return text
		}
		again, err := json.Marshal(value)
		require.NoError(t, err)
		return string(terminal.EscapeLines(again))
	}
	letters, want := make([]produce.Message, len(values)), make([]string, len(values))
	for i, value := range values {
		want[i] = normal(value)
		letters[i].Value = []byte(value)
		letters[i].Headers = append(meantFor("\x1b[2J\u202e\n"),
			produce.Header{Key: []byte("event"), Value: []byte("\x9b1m\r\n\u2066" + value)})
	}
	dead(t, c, letters...)
	for _, line := range [][]string{{"show"}, {"list", "--output", "json"}} {
		out, _, err := run(t, c, cfg, delivery.DLQCommand(), line...)
		require.NoError(t, err)
		require.Equal(t, out, string(terminal.EscapeLines([]byte(out))), "a terminal obeys none of it")
		var got []string
		for text := range strings.Lines(out) {
			var shown struct {
				Value       json.RawMessage
				ValueBase64 []byte `json:"value_base64"`
				Topic       string
			}
			require.NoError(t, json.Unmarshal([]byte(text), &shown), text)
			require.Equal(t, "\x1b[2J\u202e\n", shown.Topic)
			value := string(shown.ValueBase64)
			if shown.Value != nil && json.Unmarshal(shown.Value, &value) != nil { // it is not a string
				value = string(shown.Value)
			}
			got = append(got, normal(value))
		}
		if line[0] == "show" {
			require.ElementsMatch(t, want, got)
		}
	}
	out, _, err := run(t, c, cfg, delivery.DLQCommand(), "list")
	require.NoError(t, err)
	require.Equal(t, out, string(terminal.EscapeLines([]byte(out))))
	require.Equal(t, len(values)+1, strings.Count(out, "\n"), "no row is forged")
}

func TestAReplaySkipsAndCountsWhatItCannotSend(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	leaveTwo(t, c, cfg)
	appendRecords(t, cfg, "@dead-letters", []byte{99, 1, 2, 3})
	dead(t, c, produce.Message{Value: []byte("{}")},
		produce.Message{Value: []byte("{}"), Headers: meantFor("__consumer_offsets")},
		produce.Message{Value: []byte("{}"), Headers: meantFor("x\nforged sent to main")},
		produce.Message{Value: []byte("{}"), Headers: meantFor(deadTopic)})

	_, err := onDLQ(t, c, cfg, "list")
	require.EqualError(t, err, "1 dead letters on the disk cannot be read by this version")
	for _, args := range [][]string{{"replay", "--dry-run"}, {"replay"}} {
		verb := "sent"
		if len(args) > 1 {
			verb = "would be sent"
		}
		out, err := onDLQ(t, c, cfg, args...)
		require.EqualError(t, err, "skipped: 1 dead letters do not say where they were meant to go\n"+
			"skipped: 3 dead letters were meant for a topic that is none of the configuration's: to send them, add it "+
			"to kafka.topics.custom\nskipped: 1 dead letters on the disk cannot be read by this version")
		require.Regexp(t, `dead/\d/\d skipped: topic "__consumer_offsets" is none of the configuration's`, out)
		require.Contains(t, out, `skipped: topic "x\nforged sent to main" is none`)
		require.Regexp(t, "\n2 dead letters "+verb+", 0 were refused again, 5 skipped\n$", out)
	}
	require.ElementsMatch(t, []string{"fine", "one", "both"}, c.names(mainTopic))
}

func TestAReplayWhileTheServiceRunsLeavesTheDiskAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	leaveTwo(t, c, cfg)
	c.start(cfg)
	out, err := onDLQ(t, c, cfg, "replay")
	require.NoError(t, err, "it has done what it can do beside a service")
	require.Regexp(t, `dead/\d/0 sent to main`, out)
	require.Contains(t, out, "1 dead letters sent, 0 were refused again")
	require.Contains(t, out, "1 dead letters on the disk were left alone, because a service runs and uses the spool")
	require.Equal(t, []string{"fine", "one"}, c.names(mainTopic))
}

func TestWhatIsWrongWithADLQCommandIsSaid(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	for message, line := range map[string][]string{
		"--filter wants KEY=VALUE, got \"reason\"":         {"list", "--filter", "reason"},
		"--filter: \"color\" is not one of id":             {"list", "--filter", "color=red"},
		"--filter since: \"yesterday\" is not a time such": {"list", "--filter", "since=yesterday"},
		"--filter topic: \"mian\" is none of the topics of the configuration: " +
			strings.Join(settings().Topics.Names(), ", "): {"replay", "--filter", "topic=mian"},
	} {
		_, err := onDLQ(t, c, cfg, line...)
		require.ErrorContains(t, err, message)
		var misuse *module.MisuseError
		require.ErrorAs(t, err, &misuse)
	}
}

// appendRecords adds records to a log, as another version of the service could have done.
func appendRecords(t *testing.T, cfg delivery.Config, log string, records ...[]byte) {
	t.Helper()
	opened, err := spool.Open(spool.Config{Dir: cfg.Spool.Dir, MaxBytes: 1 << 30, SegmentBytes: 1 << 20,
		MaxPending: 1 << 20}, logger(t))
	require.NoError(t, err)
	_, err = opened.Log(log).Append(t.Context(), records)
	require.NoError(t, err)
	require.NoError(t, opened.Close())
}

// watched is a writer that calls see with all the text that was written so far.
type watched struct {
	text bytes.Buffer
	see  func(text string)
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.text.Write(p)
	w.see(w.text.String())
	return n, err
}

// A drain that takes longer than a second, here since Kafka is away, tells how many records it has sent. When the user
// interrupts it, it tells how many still wait.
func TestASlowDrainTellsHowFarItIs(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	spooled(t, c, cfg, batchOf(events.LaneMain, numbered(0, 20)...))
	c.fail("", away)
	producer, stop := c.newProducer(c.clientConfig())
	defer stop()
	d, err := delivery.NewDelivery(configs.Fixed(cfg), settings(), producer, logger(t), tally.NoopScope)
	require.NoError(t, err)
	delivery.Hurry(d)
	ctx, interrupt := context.WithTimeout(t.Context(), patience)
	defer interrupt()
	progress := &watched{see: func(text string) {
		if strings.Contains(text, "0 of 20 records sent, ") {
			interrupt()
		}
	}}
	var out bytes.Buffer
	drain := below(t, delivery.SpoolCommand(), "drain").Run.(func(module.Invocation, *delivery.Delivery) error)
	use := module.Invocation{Context: ctx, Out: &out, Err: progress, Terminal: true}
	require.ErrorIs(t, drain(use, d), context.Canceled)
	require.Equal(t, "0 records are in Kafka, 20 still wait\n", out.String())
	require.Regexp(t, `^(\r0( of 20)? records sent, \d+s *)+\r *\r$`, progress.text.String())
}

// complete returns the values that the shell offers for a flag or an argument of a command.
func complete(t *testing.T, command module.Command, name string, cfg delivery.Config) []string {
	t.Helper()
	var offered []string
	var err error
	switch values := command.Values[name].(type) {
	case func(delivery.Config) ([]string, error):
		offered, err = values(cfg)
	case func(produce.Settings) ([]string, error):
		offered, err = values(settings())
	case func() ([]string, error):
		offered, err = values()
	}
	require.NoError(t, err)
	return offered
}

func TestTheShellIsOfferedTopicsAndKeys(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := config(t, "auto")
	require.Empty(t, complete(t, below(t, delivery.SpoolCommand(), "drop"), "TOPIC", cfg), "there is no spool")
	spooled(t, c, cfg, batchOf(events.LaneMain, "a"), batchOf(events.LaneExceptions, "b"))
	appendRecords(t, cfg, "@dead-letters", []byte{99})
	waiting := []string{exceptionsTopic, mainTopic}
	require.Equal(t, waiting, complete(t, below(t, delivery.SpoolCommand(), "drop"), "TOPIC", cfg))
	require.Equal(t, waiting, complete(t, below(t, delivery.SpoolCommand(), "move"), "from", cfg))
	require.Equal(t, settings().Topics.Names(), complete(t, below(t, delivery.SpoolCommand(), "move"), "to", cfg))
	require.Contains(t, complete(t, below(t, delivery.DLQCommand(), "replay"), "filter", cfg), "reason=")
}
