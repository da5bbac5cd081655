package observability

import (
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"
	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/terminal"
)

// timestampLayout is RFC 3339 with milliseconds.
const timestampLayout = "2006-01-02T15:04:05.000Z07:00"

// A message that repeats is logged floodFirst times per second and then every floodEvery-th time. While Kafka is down,
// ten thousand failures per second thus become twenty lines.
const (
	floodFirst = 10
	floodEvery = 1000
)

// NewLogger returns a logger that writes to out, and the Writer that the logger writes through. No line makes the
// caller wait for out, and the logger's Sync is the Writer's. The logger follows the section: a new level or format
// holds for the next line. NewLogger fails if LogConfig does not know the level or format.
//
// A JSON line is {"level","timestamp","logger","caller","msg","fields":{...}}. All fields, also those of With, are
// below "fields", so that no field can hide a key of the line. The level is in lower case. The timestamp is RFC 3339
// with milliseconds, in UTC. A duration is text such as "1.5s".
func NewLogger(live *configs.Live, out *os.File) (*zap.Logger, *Writer, error) {
	section, err := configs.SectionOf[Config](live.View().Set())
	if err != nil {
		return nil, nil, err
	}
	if err := section.Validate(); err != nil {
		return nil, nil, fmt.Errorf("make a logger: %w", err)
	}
	core := &liveCore{sink: &atomic.Pointer[logSink]{}}
	writer := newWriter(out, func(lines int) []byte { return missingLines(core.sink.Load().encoder, lines) })
	core.sink.Store(newLogSink(section.Log, writer, out))
	err = configs.Follow(live, func(_, after Config) (configs.Change, error) {
		sink := newLogSink(after.Log, writer, out)
		return configs.Change{Commit: func() { core.sink.Store(sink) }}, nil
	})
	return zap.New(core, zap.AddCaller()), writer, err
}

// logSink encodes and writes lines as one configuration says.
type logSink struct {
	zapcore.Core
	encoder zapcore.Encoder
}

func newLogSink(cfg LogConfig, writer *Writer, out *os.File) *logSink {
	level, _ := cfg.level()
	encoding := zapcore.EncoderConfig{
		LevelKey:       "level",
		TimeKey:        "timestamp",
		NameKey:        "logger",
		CallerKey:      "caller",
		MessageKey:     "msg",
		LineEnding:     zapcore.DefaultLineEnding,
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeTime:     encodeTime,
		EncodeDuration: zapcore.StringDurationEncoder,
		EncodeCaller:   zapcore.ShortCallerEncoder,
	}
	var encoder zapcore.Encoder
	if cfg.Format == formatConsole || cfg.Format == formatAuto && isatty.IsTerminal(out.Fd()) {
		encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		encoding.EncodeTime = zapcore.TimeEncoderOfLayout(time.TimeOnly)
		encoder = escaping{Encoder: zapcore.NewConsoleEncoder(encoding), console: true}
	} else {
		encoder = escaping{Encoder: zapcore.NewJSONEncoder(encoding)}
		encoder.OpenNamespace("fields")
	}
	core := zapcore.NewCore(encoder, writer, level)
	// At level debug every line is wanted.
	if level > zapcore.DebugLevel {
		core = zapcore.NewSamplerWithOptions(core, time.Second, floodFirst, floodEvery)
	}
	return &logSink{Core: core, encoder: encoder}
}

// escaping is an encoder whose lines hold nothing that a terminal obeys.
type escaping struct {
	zapcore.Encoder
	// console says that the encoder writes messages as they are.
	console bool
}

// Clone implements zapcore.Encoder.
func (e escaping) Clone() zapcore.Encoder { return escaping{e.Encoder.Clone(), e.console} }

// EncodeEntry implements zapcore.Encoder.
func (e escaping) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	if e.console {
		entry.Message = terminal.Escape(entry.Message)
	}
	line, err := e.Encoder.EncodeEntry(entry, fields)
	if err != nil {
		return nil, err
	}
	if escaped := terminal.EscapeLines(line.Bytes()); len(escaped) != line.Len() {
		line.Reset()
		_, _ = line.Write(escaped) // a buffer takes everything
	}
	return line, nil
}

// liveCore hands lines to the sink in force, with the fields that With has added.
type liveCore struct {
	sink   *atomic.Pointer[logSink]
	fields []zapcore.Field
	// with is the sink in force with these fields.
	with atomic.Pointer[sinkWith]
}

type sinkWith struct {
	zapcore.Core
	of *logSink
}

var _ zapcore.Core = (*liveCore)(nil)

func (c *liveCore) core() zapcore.Core {
	sink := c.sink.Load()
	if len(c.fields) == 0 {
		return sink
	}
	with := c.with.Load()
	if with == nil || with.of != sink {
		with = &sinkWith{Core: sink.With(c.fields), of: sink}
		c.with.Store(with)
	}
	return with.Core
}

// Enabled implements zapcore.Core.
func (c *liveCore) Enabled(level zapcore.Level) bool { return c.sink.Load().Enabled(level) }

// With implements zapcore.Core.
func (c *liveCore) With(fields []zapcore.Field) zapcore.Core {
	return &liveCore{sink: c.sink, fields: append(slices.Clip(c.fields), fields...)}
}

// Check implements zapcore.Core.
func (c *liveCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return c.core().Check(entry, checked)
}

// Write implements zapcore.Core.
func (c *liveCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	return c.core().Write(entry, fields)
}

// Sync implements zapcore.Core.
func (c *liveCore) Sync() error { return c.sink.Load().Sync() }

// missingLines returns the line that replaces lines that were dropped.
func missingLines(encoder zapcore.Encoder, lines int) []byte {
	entry := zapcore.Entry{
		Level: zapcore.WarnLevel, Time: time.Now(), LoggerName: "observability",
		Message: "log lines are missing here: they could not be written",
	}
	line, err := encoder.EncodeEntry(entry, []zapcore.Field{zap.Int("lines", lines)})
	if err != nil {
		return nil // Our encoders do not fail on a number.
	}
	return line.Bytes()
}

func encodeTime(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(t.UTC().Format(timestampLayout))
}
