package observability

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/terminal"
)

// logTo returns a logger and a function that reads what it has written so far.
func logTo(t *testing.T, cfg LogConfig) (*zap.Logger, func() string) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, file.Close()) })
	log, _, err := NewLogger(configs.Fixed(Config{Log: cfg}), file)
	require.NoError(t, err)
	return log, func() string {
		require.NoError(t, log.Sync())
		content, err := os.ReadFile(file.Name())
		require.NoError(t, err)
		return string(content)
	}
}

func TestAJSONLineHasAllItsFieldsBelowFields(t *testing.T) {
	log, written := logTo(t, LogConfig{Level: "info", Format: "auto"}) // a file is no terminal
	before := time.Now().UTC().Truncate(time.Millisecond)
	log.Named("kafka").With(zap.String("token", "phc_1")).Warn("not acknowledged",
		zap.String("event_id", "0190"), zap.Duration("after", 1500*time.Millisecond),
		zap.Error(errors.New("timed out")), zap.String("level", "own"))
	after := time.Now().UTC()

	require.Regexp(t, `^{"level":"warn","timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","logger":"kafka",`+
		`"caller":"observability/logger_test\.go:\d+","msg":"not acknowledged",`+
		`"fields":{"token":"phc_1","event_id":"0190","after":"1\.5s","error":"timed out","level":"own"}}\n$`, written())

	var line struct{ Timestamp time.Time }
	require.NoError(t, json.Unmarshal([]byte(written()), &line))
	require.WithinRange(t, line.Timestamp, before, after)
}

func TestALineWithoutFieldsHasEmptyFields(t *testing.T) {
	log, written := logTo(t, LogConfig{Level: "info", Format: "json"})
	log.Info("started")
	require.Regexp(t, `"msg":"started","fields":{}}\n$`, written())
}

func TestTheConsoleFormatIsForPeople(t *testing.T) {
	log, written := logTo(t, LogConfig{Level: "info", Format: "console"})
	log.Named("kafka").Error("gone", zap.Int("events", 3))
	require.Regexp(t, `^\d\d:\d\d:\d\d\tERROR\tkafka\tobservability/logger_test\.go:\d+\tgone\t{"events": 3}\n$`,
		written())
}

func TestALogLineHasNothingThatATerminalObeys(t *testing.T) {
	const sent = "\x1b[2J\u009b1m\x7f\u202e\u2028\xff\n12:00:00\tERROR\tforged"
	for _, format := range []string{"console", "json"} {
		log, written := logTo(t, LogConfig{Level: "info", Format: format})
		log.With(zap.String("event", sent)).Named("kafka").Warn("refused "+sent, zap.Error(errors.New(sent)))
		line := written()
		require.Equal(t, line, string(terminal.EscapeLines([]byte(line))), format)
		require.Equal(t, 1, strings.Count(line, "\n"), "no line is forged: %s", line)
		if format == "json" {
			var entry struct{ Msg, Fields any }
			require.NoError(t, json.Unmarshal([]byte(line), &entry))
			require.Equal(t, "refused "+strings.ToValidUTF8(sent, "\ufffd"), entry.Msg)
		}
	}
}

func TestLinesBelowTheLevelAreNotWritten(t *testing.T) {
	log, written := logTo(t, LogConfig{Level: "warn", Format: "json"})
	log.Info("too low")
	require.Empty(t, written())
	log.Warn("high enough")
	require.Contains(t, written(), "high enough")
}

func TestAnUnknownLevelOrFormatMakesNoLogger(t *testing.T) {
	_, _, err := NewLogger(configs.Fixed(Config{Log: LogConfig{Level: "loud", Format: "json"}}), os.Stderr)
	require.EqualError(t, err, `make a logger: log.level: must be debug, info, warn or error, got "loud"`)
}

func TestAFloodOfOneMessageIsThinnedOutAboveDebug(t *testing.T) {
	const flood = 5 * floodEvery
	for level, least := range map[string]int{"info": floodFirst, "debug": flood} {
		t.Run(level, func(t *testing.T) {
			log, written := logTo(t, LogConfig{Level: level, Format: "json"})
			for range flood {
				log.Error("kafka is down")
			}
			log.Error("something else")
			lines := bytes.Count([]byte(written()), []byte("kafka is down"))
			require.GreaterOrEqual(t, lines, least)
			if level != "debug" {
				require.Less(t, lines, flood/10)
			}
			require.Contains(t, written(), "something else")
		})
	}
}

// A logger, and a logger with fields that was made from it earlier, follow the configuration that is in force when they
// write.
func TestLevelAndFormatChangeWithTheConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.yaml")
	set := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	set("observability: {log: {level: warn, format: json}}\n")
	load := func() (*configs.Set, error) {
		sections := []configs.Section{{Name: "observability", Defaults: DefaultConfig()}}
		return configs.Load(sections, configs.Source{Files: []string{path}})
	}
	first, err := load()
	require.NoError(t, err)
	live := configs.NewLive(first, load)
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	log, _, err := NewLogger(live, file)
	require.NoError(t, err)
	kafka := log.Named("kafka").With(zap.String("broker", "b1"))

	kafka.Info("quiet")
	kafka.Warn("loud")
	require.False(t, kafka.Core().Enabled(zap.InfoLevel))
	set("observability: {log: {level: debug, format: console}}\n")
	_, err = live.Reload()
	require.NoError(t, err)
	kafka.Debug("all of it")
	require.True(t, kafka.Core().Enabled(zap.DebugLevel))
	set("observability: {log: {level: shout}}\n")
	_, err = live.Reload()
	require.Error(t, err)
	log.Debug("still all")

	require.NoError(t, log.Sync())
	content, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	require.Len(t, lines, 3)
	require.Regexp(t, `^{"level":"warn".*"msg":"loud","fields":{"broker":"b1"}}$`, string(lines[0]))
	require.Regexp(t, `DEBUG\tkafka\t.*\tall of it\t{"broker": "b1"}$`, string(lines[1]))
	require.Regexp(t, `DEBUG\t.*\tstill all$`, string(lines[2]))
}
