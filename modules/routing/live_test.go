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
		return configs.Load([]configs.Section{{Name: "routing", Defaults: Config{}}},
			configs.Source{Environ: []string{"CAPTURE_ROUTING__DROP=" + drop}})
	}
	set, err := load()
	require.NoError(t, err)
	live := configs.NewLive(set, load)
	stage, err := NewStage(live)
	require.NoError(t, err)
	before := live.View()
	drop = "phc_b"
	_, err = live.Reload()
	require.NoError(t, err)
	for token, of := range map[string]*configs.View{"phc_a": before, "phc_b": live.View()} {
		batch := &events.Batch{Token: token, Config: of, Events: make([]events.Event, 1)}
		_, err := stage.Process(t.Context(), batch)
		require.NoError(t, err)
		require.Equal(t, dropped, batch.Events[0].Outcome, token)
	}
}
