package admin

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheDefaultsAreValid(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	require.Equal(t, "127.0.0.1:8001", DefaultConfig().Listen)
	require.Equal(t, DefaultConfig().StopTimeout, DefaultConfig().StopBudget())
}

func TestEveryFaultOfTheSectionIsReported(t *testing.T) {
	err := Config{Listen: "8001", ReadTimeout: -time.Second, WriteTimeout: 1, IdleTimeout: 1}.Validate()
	require.EqualError(t, err, "listen: must be host:port, such as 127.0.0.1:8001, got \"8001\"\n"+
		"read_timeout: must be positive, got -1s\nstop_timeout: must be positive, got 0s")
	for _, listen := range []string{"", ":http", "localhost:", "localhost:65536"} {
		cfg := DefaultConfig()
		cfg.Listen = listen
		require.ErrorContains(t, cfg.Validate(), "listen: must be host:port", listen)
	}
	for _, listen := range []string{":0", "[::1]:8001", "admin.internal:9"} {
		cfg := DefaultConfig()
		cfg.Listen = listen
		require.NoError(t, cfg.Validate())
	}
}
