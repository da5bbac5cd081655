package routing

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
)

// A batch goes by the rules of the configuration that judges it, though others are in force by now.
func TestABatchGoesByTheRulesOfItsOwnConfiguration(t *testing.T) {
	drop := "phc_a"
	load := func() (*configs.Set, error) {
		return configs.Load([]configs.Section{{Name: "routing", Defaults: DefaultConfig()}},
			configs.Source{Environ: []string{"CAPTURE_ROUTING__DROP=" + drop}})
	}
	set, err := load()
	require.NoError(t, err)
	live := configs.NewLive(set, load)
	stage := startStage(t, live, newStore(t))
	before := live.View()
	drop = "phc_b"
	_, err = live.Reload()
	require.NoError(t, err)
	for token, of := range map[string]*configs.View{"phc_a": before, "phc_b": live.View()} {
		got := judge1(t, stage, events.Batch{Token: token, Config: of}, events.Event{})
		require.Equal(t, "config/drop/1", got.Outcome.Rule, token)
	}
}
