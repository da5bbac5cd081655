package events

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestASetOfScopesIsOfAllOrOfThoseThatItNames(t *testing.T) {
	var all, some Scopes
	for _, resource := range Resources() {
		require.True(t, all.Has(ScopeOf(resource)))
		scope, err := ParseScope(resource.String())
		require.NoError(t, err)
		require.Equal(t, ScopeOf(resource), scope)
	}
	require.True(t, all.Has(ScopeHistorical))
	require.Empty(t, all.String())
	for _, name := range []string{"logs", "historical", "events"} {
		scope, err := ParseScope(name)
		require.NoError(t, err)
		some |= scope
	}
	require.Equal(t, "events, logs, historical", some.String())
	require.True(t, some.Has(ScopeHistorical))
	require.False(t, some.Has(ScopeOf(ResourceAI)))
	_, err := ParseScope("old")
	require.EqualError(t, err, `must be one of events, recordings, exceptions, ai, logs, surveys, got "old", `+
		`or historical for migrations of old events`)
}

func TestAnErrorHasTheReasonOfTheEventsThatItIsAbout(t *testing.T) {
	err := Errorf(Forbidden, "not here").For(ReasonOrigin)
	require.Equal(t, ReasonOrigin, ReasonOf(err, ReasonNotAdmitted))
	require.Equal(t, Forbidden, CodeOf(err))
	require.EqualError(t, err, "not here")
	require.Equal(t, ReasonNotAdmitted, ReasonOf(Errorf(Forbidden, "not here"), ReasonNotAdmitted))
	require.Equal(t, ReasonNotAdmitted, ReasonOf(errScripted, ReasonNotAdmitted))
}
