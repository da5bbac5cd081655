package observability

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheDefaultsAreValid(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
}

func TestEveryFaultOfTheSectionIsReported(t *testing.T) {
	err := Config{Log: LogConfig{Level: "fatal", Format: "xml"}}.Validate()
	require.EqualError(t, err, "log.level: must be debug, info, warn or error, got \"fatal\"\n"+
		"log.format: must be auto, json or console, got \"xml\"")
	require.Error(t, Config{Log: LogConfig{Level: "", Format: "json"}}.Validate())
}
