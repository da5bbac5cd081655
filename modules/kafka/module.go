package kafka

import (
	"reflect"

	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/produce"
)

// Module writes events to Kafka.
//
// Provides produce.Producer, produce.Settings, produce.Reader, *Bootstrap (the brokers to begin with) and the command
// "tail".
// Requires *zap.Logger and tally.Scope (modules/observability). Takes the value group "kafka_brokers" of LocalBroker
// (see AsLocalBrokers); the group may be empty unless kafka.brokers is.
// Config section: "kafka".
func Module() module.Module {
	return module.Module{
		Name:   "kafka",
		Config: DefaultConfig(),
		Rules:  []configs.Rule{filesAreThere},
		Metrics: module.Metrics{
			"messages_acked_total":  "Messages that all in-sync replicas of Kafka have.",
			"messages_failed_total": "Messages that were not acknowledged, by class: docs/delivery.md has the classes.",
			"bytes_total":           "Bytes of the acknowledged messages, before compression.",
			"buffered_bytes":        "Bytes of the messages that wait for an acknowledgement, before compression.",
			"produce_seconds":       "How long batches took from the first message to the acknowledgement, in seconds.",
		},
		Options: fx.Provide(
			fx.Annotate(NewBootstrap, fx.ParamTags(``, `group:"kafka_brokers"`)),
			newProducer,
			newSettings,
			fx.Annotate(NewReader, fx.As(new(produce.Reader))),
		),
		Requires: []module.Requirement{
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
		},
		Commands: []module.Command{tailCommand()},
	}
}

// AsLocalBrokers annotates a constructor that returns a []LocalBroker, so that the constructor's brokers join the value
// group.
func AsLocalBrokers(constructor any) any {
	return fx.Annotate(constructor, fx.ResultTags(`group:"kafka_brokers,flatten"`))
}

func newSettings(cfg Config) produce.Settings {
	return produce.Settings{Topics: cfg.Topics, MaxMessageBytes: int(cfg.MaxMessageBytes)}
}

func newProducer(
	cfg Config, live *configs.Live, bootstrap *Bootstrap, log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle,
) (produce.Producer, error) {
	producer, err := NewProducer(cfg, bootstrap, log, scope)
	if err != nil {
		return nil, err
	}
	err = configs.Follow(live, func(before, after Config) (configs.Change, error) {
		// What is wrong with certificates and passwords refuses the configuration.
		if _, err := producerConfig(after); err != nil {
			return configs.Change{}, err
		}
		return configs.Change{Commit: func() {
			producer.SetTopics(after.Topics)
			if !reflect.DeepEqual(before.TLS, after.TLS) || !reflect.DeepEqual(before.SASL, after.SASL) {
				producer.SetLogin(after.TLS, after.SASL)
			}
		}}, nil
	})
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.Hook{OnStart: producer.Start, OnStop: producer.Stop})
	return producer, nil
}
