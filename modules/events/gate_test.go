package events

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// gate is a Gate that notes that it was asked.
type gate struct {
	phase Phase
	name  string
	asked *[]string
	err   error
}

func (g gate) Phase() Phase { return g.phase }
func (g gate) Name() string { return g.name }

func (g gate) Admit(context.Context, *Caller) error {
	*g.asked = append(*g.asked, g.name)
	return g.err
}

func TestGatesAreAskedInTheirOrderUntilOneRefuses(t *testing.T) {
	var asked []string
	gates, err := NewGates(
		gate{PhaseQuota, "c", &asked, nil}, gate{PhaseAuth, "b", &asked, errScripted},
		gate{PhaseAuth, "a", &asked, nil})
	require.NoError(t, err)
	require.Equal(t, errScripted, gates.Admit(t.Context(), &Caller{}))
	require.Equal(t, []string{"a", "b"}, asked)
}

func TestTwoGatesOfOneNameInOnePhaseAreRefused(t *testing.T) {
	_, err := NewGates(gate{PhaseAuth, "a", nil, nil}, gate{PhaseQuota, "a", nil, nil}, gate{PhaseAuth, "a", nil, nil})
	require.EqualError(t, err, `two gates are named "a" in phase 100: rename one or leave it out`)
}
