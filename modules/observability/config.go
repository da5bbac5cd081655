package observability

import (
	"go.uber.org/zap/zapcore"

	"github.com/opencapture/capture/configs"
)

// Config is the section "observability".
type Config struct {
	Log LogConfig `key:"log" doc:"Logs, which go to standard error. If nobody reads them, the service goes on, drops lines, and counts them in capture_observability_log_lines_dropped_total."`
}

// LogConfig says which lines are logged and how they look.
type LogConfig struct {
	Level  string `key:"level" live:"true" doc:"The least severe level that is logged: debug, info, warn or error. At debug, each event and each refused request has a line. Above debug, only some lines of a message that repeats very often are logged."`
	Format string `key:"format" live:"true" doc:"The format of a line: json, console, or auto, which is console on a terminal and json elsewhere."`
}

// The values of LogConfig.Format.
const (
	formatAuto    = "auto"
	formatJSON    = "json"
	formatConsole = "console"
)

// DefaultConfig returns the defaults of the section.
func DefaultConfig() Config {
	return Config{Log: LogConfig{Level: "info", Format: formatAuto}}
}

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	_, ok := c.Log.level()
	faults.Check(ok, "log.level", "must be debug, info, warn or error, got %q", c.Log.Level)
	switch c.Log.Format {
	case formatAuto, formatJSON, formatConsole:
	default:
		faults.Addf("log.format", "must be auto, json or console, got %q", c.Log.Format)
	}
	return faults.Err()
}

// level returns zap's level of the name. It refuses zap's levels above error: these panic or end the process, so none
// of them is a severity to ask for.
func (c LogConfig) level() (level zapcore.Level, ok bool) {
	level, err := zapcore.ParseLevel(c.Level)
	return level, err == nil && c.Level != "" && level <= zapcore.ErrorLevel
}
