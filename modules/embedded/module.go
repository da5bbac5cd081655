package embedded

import (
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/module"
)

// Module is a Kafka-protocol broker in this process, for a service that has no cluster.
//
// Provides a member of the value group "kafka_brokers", unless kafka.brokers is set or embedded.enabled is false. The
// broker starts before the producer, and only if there is a producer.
// Requires kafka.Config (modules/kafka) and *zap.Logger (modules/observability).
// Config section: "embedded".
func Module() module.Module {
	return module.Module{
		Name:    "embedded",
		Config:  DefaultConfig(),
		Rules:   []configs.Rule{brokersAreThere},
		Probes:  []configs.Rule{dataCanBeKept},
		Options: fx.Provide(kafka.AsLocalBrokers(newBrokers)),
		Requires: []module.Requirement{
			module.Require[kafka.Config]("modules/kafka"),
			module.Require[*zap.Logger]("modules/observability"),
		},
	}
}

func newBrokers(cfg Config, client kafka.Config, log *zap.Logger, lifecycle fx.Lifecycle) []kafka.LocalBroker {
	if !cfg.Enabled || len(client.Brokers) > 0 {
		return nil
	}
	broker := NewBroker(cfg, client, log)
	lifecycle.Append(fx.Hook{OnStart: broker.Start, OnStop: broker.Stop})
	return []kafka.LocalBroker{broker}
}
