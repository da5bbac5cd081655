package delivery

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/produce"
)

// Module decides what a 200 means, and keeps events on the disk while Kafka does not take them.
//
// Provides events.Sink; a check of whether events can be made safe; a check "kafka", and an override of it while events
// can be made safe; a collector of metrics; two start facts; the commands "spool" and "dlq". The checks, the collector
// and the facts follow the sink when that is overridden. Requires produce.Producer, produce.Settings and, for its
// commands, produce.Reader (modules/kafka), *zap.Logger and tally.Scope (modules/observability). Config section:
// "delivery".
func Module() module.Module {
	return module.Module{
		Name:    "delivery",
		Config:  DefaultConfig(),
		Probes:  []configs.Rule{spoolCanBeKept},
		Metrics: described,
		Options: fx.Provide(
			newDelivery,
			func(d *Delivery) events.Sink { return d },
			observability.AsCheck(newCheck),
			observability.AsCheck(newKafkaCheck),
			observability.AsOverride(newOverride),
			observability.AsCollector(newCollector),
			module.AsStartFact(newTargetFact),
			module.AsStartFact(newAckFact),
		),
		Commands: []module.Command{spoolCommand(), dlqCommand()},
		Requires: []module.Requirement{
			module.Require[produce.Producer]("modules/kafka"),
			module.Require[produce.Settings]("modules/kafka"),
			module.Require[produce.Reader]("modules/kafka"),
			module.Require[*zap.Logger]("modules/observability"),
			module.Require[tally.Scope]("modules/observability"),
		},
	}
}

// newDelivery asks for the producer, so that the producer's hooks come first: the producer starts before the spool is
// drained into it, and stops after the drains.
func newDelivery(
	live *configs.Live, settings produce.Settings, producer produce.Producer, log *zap.Logger, scope tally.Scope,
	lifecycle fx.Lifecycle,
) (*Delivery, error) {
	d, err := NewDelivery(live, settings, producer, log, scope)
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.Hook{OnStart: d.Start, OnStop: d.Stop})
	return d, nil
}

// The following functions ask for the sink that the graph has. So a graph with another sink builds neither a Delivery
// nor a producer.

func newCheck(sink events.Sink) observability.Check {
	return observability.Check{Name: "delivery", Ready: func(ctx context.Context) error {
		if d, ok := sink.(*Delivery); ok {
			return d.Ready(ctx)
		}
		return nil
	}}
}

func newKafkaCheck(sink events.Sink) observability.Check {
	return observability.Check{Name: "kafka", Ready: func(context.Context) error {
		if d, ok := sink.(*Delivery); ok {
			return d.producer.Ready()
		}
		return nil
	}}
}

func newOverride(sink events.Sink) observability.Override {
	return observability.Override{Check: "kafka", Why: func(ctx context.Context) string {
		if d, ok := sink.(*Delivery); ok {
			return d.Override(ctx)
		}
		return ""
	}}
}

func newCollector(sink events.Sink) prometheus.Collector {
	if d, ok := sink.(*Delivery); ok {
		return NewCollector(d)
	}
	return nothing{}
}

// nothing is the collector for a sink that is not a Delivery.
type nothing struct{}

func (nothing) Describe(chan<- *prometheus.Desc) {}
func (nothing) Collect(chan<- prometheus.Metric) {}

// newTargetFact tells where events go, if the sink is a Delivery: to its producer.
func newTargetFact(sink events.Sink) module.StartFact {
	return module.StartFact{Rank: 20, Name: "events to", Text: func() string {
		if d, ok := sink.(*Delivery); ok {
			if described, ok := d.producer.(fmt.Stringer); ok {
				return described.String()
			}
		}
		return ""
	}}
}

func newAckFact(sink events.Sink) module.StartFact {
	return module.StartFact{Rank: 30, Name: "a 200 means", Text: func() string {
		if d, ok := sink.(*Delivery); ok {
			return d.String()
		}
		return "what the sink makes of it: it is not modules/delivery"
	}}
}
