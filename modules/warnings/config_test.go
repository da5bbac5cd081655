package warnings

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheDefaultsAreValid(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	require.True(t, DefaultConfig().Enabled)
	require.Equal(t, DefaultConfig().StopTimeout, DefaultConfig().StopBudget())
	require.Zero(t, Config{StopTimeout: time.Second}.StopBudget(), "what is off takes no time to stop")
}

func TestEveryFaultOfTheSectionIsReported(t *testing.T) {
	require.EqualError(t, Config{StopTimeout: -time.Second}.Validate(),
		"interval: must be positive, got 0s\nstop_timeout: must be positive, got -1s")
}
