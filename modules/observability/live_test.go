package observability

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
)

// A configuration that another module refuses leaves the log as it is.
func TestALevelOfARefusedConfigurationDoesNotHold(t *testing.T) {
	level := "warn"
	load := func() (*configs.Set, error) {
		return configs.Load([]configs.Section{{Name: "observability", Defaults: DefaultConfig()}},
			configs.Source{Environ: []string{"CAPTURE_OBSERVABILITY__LOG__LEVEL=" + level}})
	}
	set, err := load()
	require.NoError(t, err)
	live := configs.NewLive(set, load)
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	log, _, err := NewLogger(live, file)
	require.NoError(t, err)
	require.NoError(t, configs.Follow(live, func(_, _ Config) (configs.Change, error) {
		return configs.Change{}, errors.New("not now")
	}))
	level = "debug"
	_, err = live.Reload()
	require.ErrorContains(t, err, "not now")
	require.False(t, log.Core().Enabled(zap.DebugLevel))
}

// Two loggers that are made of one do not share the fields that each adds.
func TestTwoLoggersOfOneKeepTheirFieldsApart(t *testing.T) {
	log, written := logTo(t, LogConfig{Level: "info", Format: "json"})
	base := log
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		base = base.With(zap.String(key, key))
	}
	left := base.With(zap.String("side", "left"))
	right := base.With(zap.String("side", "right"))
	left.Info("one")
	right.Info("two")
	require.Contains(t, written(), `"side":"left"`)
	require.Contains(t, written(), `"side":"right"`)
}
