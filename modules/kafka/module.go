package kafka

import (
	"context"
	"fmt"

	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/observability"
)

// Module writes events to Kafka.
//
// Provides events.Sink, the base sink; events.TopicReader; *Bootstrap, the brokers to begin with; a member of "health_checks" and a start fact,
// both of which follow the sink when that is overridden; the command "tail".
// Requires *zap.Logger and tally.Scope (modules/observability); takes the value group "kafka_brokers" of LocalBroker (see
// AsLocalBrokers), which is needed only when kafka.brokers is empty.
// Config section: "kafka".
func Module() configs.Module {
	return configs.Module{
		Name:   "kafka",
		Config: DefaultConfig(),
		Options: fx.Provide(
			fx.Annotate(NewBootstrap, fx.ParamTags(``, `group:"kafka_brokers"`)),
			newSink,
			fx.Annotate(NewReader, fx.As(new(events.TopicReader))),
			observability.AsCheck(newCheck),
			configs.AsStartFact(newStartFact),
		),
		Requires: []configs.Requirement{
			configs.Require[*zap.Logger]("modules/observability"),
			configs.Require[tally.Scope]("modules/observability"),
		},
		Commands: []configs.Command{tailCommand()},
	}
}

// AsLocalBrokers annotates a constructor that returns a []LocalBroker so that they join the value group.
func AsLocalBrokers(constructor any) any {
	return fx.Annotate(constructor, fx.ResultTags(`group:"kafka_brokers,flatten"`))
}

func newSink(cfg Config, bootstrap *Bootstrap, log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle) (events.Sink, error) {
	producer, err := NewProducer(cfg, bootstrap, log, scope)
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.Hook{OnStart: producer.Start, OnStop: producer.Stop})
	return producer, nil
}

// newCheck asks whichever sink the graph has, so that overriding the sink never builds a client.
func newCheck(sink events.Sink) observability.Check {
	ready := func(context.Context) error { return nil }
	if asked, ok := sink.(interface{ Ready(context.Context) error }); ok {
		ready = asked.Ready
	}
	return observability.Check{Name: "kafka", Ready: ready}
}

// newStartFact tells of whichever sink the graph has.
func newStartFact(sink events.Sink) configs.StartFact {
	return configs.StartFact{Rank: 20, Name: "events to", Text: func() string {
		if described, ok := sink.(fmt.Stringer); ok {
			return described.String()
		}
		return ""
	}}
}
