package observability

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func check(name string, err error) Check {
	return Check{Name: name, Ready: func(context.Context) error { return err }}
}

func TestTheServiceIsReadyFromStartedToStopping(t *testing.T) {
	health, err := NewHealth(nil, check("store", nil))
	require.NoError(t, err)

	require.EqualError(t, health.Ready(t.Context()), "the service is starting")
	health.SetStarted()
	require.NoError(t, health.Ready(t.Context()))
	health.SetStopping()
	require.EqualError(t, health.Ready(t.Context()), "the service is stopping")
	health.SetStarted()
	require.EqualError(t, health.Ready(t.Context()), "the service is stopping")
}

func TestEveryFailingCheckIsListedWithItsReason(t *testing.T) {
	health, err := NewHealth(nil,
		check("store", errors.New("no connection to 10.0.0.1:6379")), check("delivery", nil),
		check("kafka", errors.New("no metadata yet")))
	require.NoError(t, err)
	health.SetStarted()

	require.EqualError(t, health.Ready(t.Context()), "kafka: no metadata yet\nstore: no connection to 10.0.0.1:6379")
	require.Equal(t, Report{Phase: "running", Checks: []CheckReport{
		{Name: "delivery", Ready: true},
		{Name: "kafka", Reason: "no metadata yet"},
		{Name: "store", Reason: "no connection to 10.0.0.1:6379"},
	}}, health.Report(t.Context()))
}

func TestAFailingCheckMayBeOverridden(t *testing.T) {
	why := "the spool takes what Kafka does not"
	overrides := []Override{
		{Check: "kafka", Why: func(context.Context) string { return "" }},
		{Check: "kafka", Why: func(context.Context) string { return why }},
		{Check: "delivery", Why: func(context.Context) string { return "unused: the check passes" }},
	}
	health, err := NewHealth(overrides, check("kafka", errors.New("away")), check("delivery", nil))
	require.NoError(t, err)
	health.SetStarted()
	require.NoError(t, health.Ready(t.Context()))
	require.Equal(t, Report{Ready: true, Phase: "running", Checks: []CheckReport{
		{Name: "delivery", Ready: true},
		{Name: "kafka", Reason: "away", Overridden: why},
	}}, health.Report(t.Context()))
	why = ""
	require.EqualError(t, health.Ready(t.Context()), "kafka: away")
	require.False(t, health.Report(t.Context()).Ready)
}

func TestTwoChecksOfOneNameAreRefused(t *testing.T) {
	_, err := NewHealth(nil, check("kafka", nil), check("store", nil), check("kafka", nil))
	require.EqualError(t, err, `two health checks are named "kafka": rename one`)
}

func TestAChecksContextHasADeadline(t *testing.T) {
	health, err := NewHealth(nil, Check{Name: "slow", Ready: func(ctx context.Context) error {
		_, ok := ctx.Deadline()
		require.True(t, ok)
		return ctx.Err()
	}})
	require.NoError(t, err)
	require.True(t, health.Report(t.Context()).Checks[0].Ready)
}

func TestHealthIsSafeForConcurrentUse(t *testing.T) {
	health, err := NewHealth(nil, check("kafka", nil))
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 8 {
		all.Go(health.SetStarted)
		all.Go(health.SetStopping)
		all.Go(func() { health.Report(t.Context()) })
	}
	all.Wait()
	require.EqualError(t, health.Ready(t.Context()), "the service is stopping")
}

func TestACheckThatPanicsHasFailedAndAnOverrideThatPanicsIsNone(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	health, err := NewHealth(
		[]Override{{Check: "panicky", Why: func(context.Context) string { panic("no ink") }}},
		Check{Name: "panicky", Ready: func(context.Context) error { panic("no paper") }}, check("store", nil))
	require.NoError(t, err)
	health.LogTo(zap.New(core))
	health.SetStarted()
	report := health.Report(t.Context())
	require.False(t, report.Ready)
	require.Equal(t, []CheckReport{
		{Name: "panicky", Reason: "panic: no paper"}, {Name: "store", Ready: true},
	}, report.Checks)
	require.Equal(t, 1, logs.FilterMessage("the health check panicky panicked").Len())
	require.Equal(t, 1, logs.FilterMessage("the override of the health check panicky panicked").Len())
}
