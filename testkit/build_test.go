package testkit_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/app/standard"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/testkit"
)

// blocklist is a module as an author might write it: a section, and a stage that drops events by name.
func blocklist() module.Module {
	return module.Module{
		Name:    "blocklist",
		Config:  blocklistConfig{},
		Options: fx.Provide(events.AsStage(newBlocklistStage)),
	}
}

type blocklistConfig struct {
	Name string `key:"name" doc:"Events of this name are dropped."`
}

type blocklistStage struct{ config blocklistConfig }

func newBlocklistStage(config blocklistConfig) blocklistStage { return blocklistStage{config} }

func (blocklistStage) Phase() events.Phase { return events.PhasePlugins }
func (blocklistStage) Name() string        { return "blocklist" }

func (s blocklistStage) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	for i := range batch.Events {
		if batch.Events[i].Name == s.config.Name {
			batch.Events[i].Drop("blocklist")
		}
	}
	return nil, nil
}

func TestABuildTakesAModuleOfItsOwn(t *testing.T) {
	service := testkit.Start(t, testkit.With(blocklist()), testkit.Set("blocklist.name", "secret"))
	response := service.Post("/batch/",
		`{"api_key":"k","batch":[{"event":"secret","distinct_id":"u"},{"event":"open","distinct_id":"u"}]}`)
	require.Equal(t, 200, response.Status)
	messages := service.Messages()
	require.Len(t, messages, 1)
	require.Equal(t, "open", messages[0].Envelope.Event)
	require.Contains(t, service.Admin("/metrics").Body, `capture_events_dropped_total{reason="blocklist"} 1`)
}

func TestABuildThatLacksAModuleIsToldWhichOne(t *testing.T) {
	for left, want := range map[string]string{
		"transport":     "include the module transport",
		"kafka":         "include the module modules/kafka",
		"events":        "include the module modules/events",
		"observability": "include the module modules/observability",
	} {
		var modules []module.Module
		for _, module := range standard.Modules() {
			if module.Name != left {
				modules = append(modules, module)
			}
		}
		_, err := app.Build(modules, configs.Source{})
		require.ErrorContains(t, err, want, "without %s", left)
	}
}

func TestAModuleThatNobodyNeedsCanBeLeftOut(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Without("embedded"), testkit.Override[events.Sink](sink))
	require.Equal(t, 200, service.Post("/e/", hello).Status)
	require.Len(t, sink.Events(), 1)
}
