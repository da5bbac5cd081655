package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

// ReadTopic implements events.TopicReader: the stub's topics have one partition.
func (k *stub) ReadTopic(_ context.Context, topic string, each func(int32, int64, *events.Message) error) error {
	k.mu.Lock()
	stored := slices.Clone(k.stored)
	k.mu.Unlock()
	offset := int64(0)
	for i := range stored {
		if stored[i].Topic != topic {
			continue
		}
		if err := each(0, offset, &stored[i]); err != nil {
			return err
		}
		offset++
	}
	return nil
}

// invocation is a command line whose output can be read.
func invocation(t *testing.T, command configs.Command, line ...string) (use configs.Invocation, out *bytes.Buffer) {
	t.Helper()
	out = new(bytes.Buffer)
	flags := pflag.NewFlagSet(command.Name, pflag.ContinueOnError)
	if command.Flags != nil {
		command.Flags(flags)
	}
	require.NoError(t, flags.Parse(line))
	return configs.Invocation{Context: t.Context(), Args: flags.Args(), Flags: flags, Out: out, Err: out}, out
}

func runOnSpool(t *testing.T, cfg Config, kafka *stub, line ...string) (string, error) {
	t.Helper()
	d, err := NewDelivery(cfg, kafka, zap.NewNop(), tally.NoopScope)
	require.NoError(t, err)
	use, out := invocation(t, spoolCommand(), line...)
	err = runSpool(use, cfg, d)
	return out.String(), err
}

func runOnDLQ(t *testing.T, cfg Config, kafka *stub, line ...string) (string, error) {
	t.Helper()
	use, out := invocation(t, dlqCommand(), line...)
	err := runDLQ(use, cfg, kafka, kafka)
	return out.String(), err
}

func TestSpoolStatusVerifyAndDrain(t *testing.T) {
	kafka := newStub()
	cfg := testConfig(t, modeAuto)
	out, err := runOnSpool(t, cfg, kafka, "status")
	require.NoError(t, err)
	require.Equal(t, "log  records  bytes  since  unreadable\n", out)

	kafka.goAway()
	d, _, stop := begin(t, cfg, kafka)
	requireSafe(t, write(t, d, names(0, 200)...), events.AckSpool)
	out, err = runOnSpool(t, cfg, kafka, "status")
	require.NoError(t, err)
	require.Contains(t, out, "in use by a service that runs")
	require.Regexp(t, `main +200 +\d+ +\d{4}-\d\d-\d\dT\S+Z +0\n`, out)
	_, err = runOnSpool(t, cfg, kafka, "verify")
	require.ErrorContains(t, err, "the service runs and uses the spool")
	kafka.comeBack()
	_, err = runOnSpool(t, cfg, kafka, "drain")
	require.ErrorContains(t, err, "another process uses this directory")
	kafka.goAway()
	stop()

	before := files(t, cfg.Spool.Dir)
	out, err = runOnSpool(t, cfg, kafka, "verify")
	require.NoError(t, err)
	require.Regexp(t, `main +\d+ +\d+ +\S+ +0\n`, out)
	require.Equal(t, before, files(t, cfg.Spool.Dir), "nothing is changed by looking")

	kafka.comeBack()
	waiting := 200 - len(kafka.values("main"))
	out, err = runOnSpool(t, cfg, kafka, "drain")
	require.NoError(t, err)
	require.Contains(t, out, "records are in Kafka, none waits")
	require.Equal(t, names(0, 200), kafka.values("main"), "%d waited", waiting)

	for _, line := range [][]string{{}, {"empty"}, {"status", "main"}} {
		_, err = runOnSpool(t, cfg, kafka, line...)
		require.ErrorContains(t, err, "spool wants status, verify or drain")
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

func TestSpoolVerifyTellsOfRecordsThatCannotBeRead(t *testing.T) {
	kafka := newStub()
	kafka.goAway()
	cfg := testConfig(t, modeAuto)
	d, _, stop := begin(t, cfg, kafka)
	requireSafe(t, write(t, d, names(0, 20)...), events.AckSpool)
	stop()
	segments, err := filepath.Glob(filepath.Join(cfg.Spool.Dir, "main", "*.log"))
	require.NoError(t, err)
	require.Len(t, segments, 1)
	content, err := os.ReadFile(segments[0])
	require.NoError(t, err)
	content[bytes.Index(content, []byte("e0007"))] ^= 1
	require.NoError(t, os.WriteFile(segments[0], content, 0o600))

	out, err := runOnSpool(t, cfg, kafka, "verify")
	require.EqualError(t, err, "1 records cannot be read: the service leaves them out, and counts them")
	require.Regexp(t, `main +20 +\d+ +\S+ +1\n`, out)

	kafka.comeBack()
	_, err = runOnSpool(t, cfg, kafka, "drain")
	require.NoError(t, err)
	require.Equal(t, append(names(0, 7), names(8, 12)...), kafka.values("main"))
}

// buryTwo leaves one dead letter in the topic and one on the disk.
func buryTwo(t *testing.T, cfg Config, kafka *stub) {
	t.Helper()
	kafka.set(func(k *stub) {
		k.judge = func(m *events.Message) error {
			switch {
			case string(m.Value) == "both":
				return events.Refused("too_large", errAway)
			case string(m.Value) == "one" && m.Topic == "main":
				return events.Refused("unauthorized", errAway)
			default:
				return nil
			}
		}
	})
	d, _, stop := begin(t, cfg, kafka)
	requireSafe(t, write(t, d, "fine", "one", "both"), events.AckSpool)
	requireArrived(t, d, kafka, "main", "fine")
	stop()
}

func TestDeadLettersAreListedShownAndReplayed(t *testing.T) {
	kafka := newStub()
	cfg := testConfig(t, modeAuto)
	buryTwo(t, cfg, kafka)

	out, err := runOnDLQ(t, cfg, kafka, "list")
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 2)
	var onDisk, inTopic letter
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &onDisk))
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &inTopic))
	require.Equal(t, "disk/1", onDisk.ID)
	require.Equal(t, "too_large", onDisk.Reason)
	require.Equal(t, "main", onDisk.Topic)
	require.Equal(t, "dead/0/0", inTopic.ID)
	require.Equal(t, "unauthorized", inTopic.Reason)
	require.Nil(t, inTopic.Value)

	out, err = runOnDLQ(t, cfg, kafka, "show", "--filter", "reason=unauthorized", "--filter", "topic=main")
	require.NoError(t, err)
	var shown letter
	require.NoError(t, json.Unmarshal([]byte(out), &shown))
	require.Equal(t, `"one"`, string(shown.Value))
	require.Equal(t, "user", *shown.Key)
	require.Equal(t, "delivery", shown.Headers["dlq_step"])

	out, err = runOnDLQ(t, cfg, kafka, "replay", "--dry-run")
	require.NoError(t, err)
	require.Equal(t, "disk/1 would be sent to main\ndead/0/0 would be sent to main\n"+
		"2 dead letters would be sent, 0 were refused again, 0 do not say where they were meant to go\n", out)
	require.Equal(t, []string{"fine"}, kafka.values("main"))

	out, err = runOnDLQ(t, cfg, kafka, "replay")
	require.ErrorContains(t, err, "2 dead letters were refused again")
	require.Contains(t, out, "disk/1 to main: refused again")

	kafka.comeBack()
	_, err = runOnDLQ(t, cfg, kafka, "replay", "--filter", "reason=too_large")
	require.NoError(t, err)
	require.Equal(t, []string{"fine", "both"}, kafka.values("main"))
	for _, header := range kafka.stored[len(kafka.stored)-1].Headers {
		require.NotContains(t, string(header.Key), "dlq", "it is as it was before it died")
	}
	out, err = runOnDLQ(t, cfg, kafka, "list", "--filter", "reason=too_large")
	require.NoError(t, err)
	require.Empty(t, out, "what was on the disk and is replayed is gone")
}

func TestAReplayWhileTheServiceRunsLeavesTheDiskAlone(t *testing.T) {
	kafka := newStub()
	cfg := testConfig(t, modeAuto)
	buryTwo(t, cfg, kafka)
	kafka.comeBack()
	begin(t, cfg, kafka)
	out, err := runOnDLQ(t, cfg, kafka, "replay")
	require.ErrorContains(t, err, "dead letters on the disk: ")
	require.ErrorContains(t, err, "another process uses this directory")
	require.Contains(t, out, "dead/0/0 sent to main")
	require.Equal(t, []string{"fine", "one"}, kafka.values("main"))
}

func TestWhatIsWrongWithADLQCommandIsSaid(t *testing.T) {
	kafka := newStub()
	cfg := testConfig(t, modeAuto)
	for message, line := range map[string][]string{
		"dlq wants list, show or replay":                   {"bury"},
		"--filter wants KEY=VALUE, got \"reason\"":         {"list", "--filter", "reason"},
		"--filter: \"color\" is not one of id":             {"list", "--filter", "color=red"},
		"--filter since: \"yesterday\" is not a time such": {"list", "--filter", "since=yesterday"},
	} {
		_, err := runOnDLQ(t, cfg, kafka, line...)
		require.ErrorContains(t, err, message)
	}
}

func TestFiltersOfTimeAndUser(t *testing.T) {
	m := events.Message{Headers: []events.Header{
		{Key: []byte("dlq_timestamp"), Value: []byte("2026-11-27T10:00:00.000Z")}, {Key: []byte("token"), Value: []byte("phc")},
		{Key: []byte("distinct_id"), Value: []byte("u")}, {Key: []byte("event"), Value: []byte("e")},
	}}
	l := newLetter("dead/0/1", &m)
	for text, matches := range map[string]bool{
		"since=2026-11-27T10:00:00Z": true, "since=2026-11-27T10:00:01Z": false, "until=2026-11-27T10:00:00Z": false, "until=2026-11-27T10:00:01Z": true,
		"token=phc": true, "token=phx": false, "distinct_id=u": true, "event=e": true, "event=f": false, "id=dead/0/1": true, "id=dead/0/2": false,
	} {
		f, err := parseFilter([]string{text})
		require.NoError(t, err)
		require.Equal(t, matches, f.matches(&l), text)
	}
}
