package delivery

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
)

func TestConfigurationFaultsAreReported(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	err := Config{Ack: "maybe", Lanes: Lanes{AI: "never"}}.Validate()
	for _, fault := range []string{
		`ack: must be kafka, spool, auto, memory, got "maybe"`,
		`lanes.ai: must be kafka, spool, auto, memory, got "never"`,
		"buffer: must be at least 1MiB, got 0", "spool_after: must be positive and less than timeout",
		"timeout: must be at least 10ms", "stop_timeout: must be positive",
		"spool.dir: must not be empty", "spool.segment_bytes: must be from 1MiB to 1GiB",
		"spool.unready_fill: must be more than 0 and at most 1", "drain.speed: must be more than 1",
		"drain.min_rate: must be at least 64KiB",
	} {
		require.ErrorContains(t, err, fault)
	}
	cfg := DefaultConfig()
	cfg.Spool.MaxBytes = cfg.Spool.SegmentBytes
	require.ErrorContains(t, cfg.Validate(), "spool.max_bytes: must hold at least two segments (64MiB), got 32MiB")
	require.Equal(t, cfg.StopTimeout, cfg.StopBudget())
}

func TestEveryLaneHasAKey(t *testing.T) {
	cfg := DefaultConfig()
	named := cfg.Lanes.named()
	require.Len(t, named, len(events.Lanes()))
	for i, lane := range events.Lanes() {
		require.Equal(t, lane, named[i].lane)
		require.Equal(t, lane.String(), named[i].key)
	}
	_, err := NewDelivery(configs.Fixed(Config{Ack: "maybe"}), produce.Settings{}, nil, nil, nil)
	require.ErrorContains(t, err, `delivery.ack: "maybe" is not known`)
}
