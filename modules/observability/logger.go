package observability

import (
	"fmt"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// timestampLayout is RFC 3339 with milliseconds.
const timestampLayout = "2006-01-02T15:04:05.000Z07:00"

// A message that repeats is logged floodFirst times per second and then every floodEvery-th time: while Kafka is down, ten
// thousand failures per second become twenty lines.
const (
	floodFirst = 10
	floodEvery = 1000
)

// NewLogger returns a logger that writes to out, and the Writer that it does so by: no line makes the caller wait for
// out, and the logger's Sync is the Writer's. It fails if the level or format is not one that LogConfig names.
//
// A JSON line is {"level","timestamp","logger","caller","msg","fields":{...}}: all fields, those of With included, are below
// "fields", so that no field can shadow a key of the line. The level is in lower case, the timestamp RFC 3339 with
// milliseconds in UTC, a duration is text such as "1.5s".
func NewLogger(cfg LogConfig, out *os.File) (*zap.Logger, *Writer, error) {
	if err := (Config{Log: cfg}).Validate(); err != nil {
		return nil, nil, fmt.Errorf("make a logger: %w", err)
	}
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
		encoder = zapcore.NewConsoleEncoder(encoding)
	} else {
		encoder = zapcore.NewJSONEncoder(encoding)
		encoder.OpenNamespace("fields")
	}
	writer := newWriter(out, func(lines int) []byte { return missingLines(encoder, lines) })
	core := zapcore.NewCore(encoder, writer, level)
	// Whoever asks for debug wants to see everything.
	if level > zapcore.DebugLevel {
		core = zapcore.NewSamplerWithOptions(core, time.Second, floodFirst, floodEvery)
	}
	return zap.New(core, zap.AddCaller()), writer, nil
}

// missingLines is the line that stands in the place of lines that were dropped.
func missingLines(encoder zapcore.Encoder, lines int) []byte {
	entry := zapcore.Entry{
		Level: zapcore.WarnLevel, Time: time.Now(), LoggerName: "observability",
		Message: "log lines are missing here: they could not be written",
	}
	line, err := encoder.EncodeEntry(entry, []zapcore.Field{zap.Int("lines", lines)})
	if err != nil {
		return nil // No encoder of ours fails on a number.
	}
	return line.Bytes()
}

func encodeTime(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(t.UTC().Format(timestampLayout))
}
