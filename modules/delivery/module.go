package delivery

import (
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/observability"
)

// Module decides what a 200 means, and keeps events on the disk while Kafka does not take them.
//
// Provides *Delivery; a layer around the base sink, next to it; a check of the spool, a waiver of the check "kafka" while the spool
// takes what Kafka does not, a collector of metrics, a start fact, and the commands "spool" and "dlq".
// Requires events.Sink and, for its commands, events.TopicReader (modules/kafka), *zap.Logger and tally.Scope (modules/observability).
// Config section: "delivery".
func Module() configs.Module {
	return configs.Module{
		Name:   "delivery",
		Config: DefaultConfig(),
		Options: fx.Provide(
			newDelivery,
			events.AsLayer((*Delivery).Layer),
			observability.AsCheck(newCheck),
			observability.AsWaiver(newWaiver),
			observability.AsCollector(NewCollector),
			configs.AsStartFact(newStartFact),
		),
		Commands: []configs.Command{spoolCommand(), dlqCommand()},
		Requires: []configs.Requirement{
			configs.Require[events.Sink]("modules/kafka"),
			configs.Require[events.TopicReader]("modules/kafka"),
			configs.Require[*zap.Logger]("modules/observability"),
			configs.Require[tally.Scope]("modules/observability"),
		},
	}
}

// newDelivery asks for the base sink itself, so that the sink's hooks come first: it starts before the spool is emptied into it,
// and stops after that.
func newDelivery(cfg Config, base events.Sink, log *zap.Logger, scope tally.Scope, lifecycle fx.Lifecycle) (*Delivery, error) {
	d, err := NewDelivery(cfg, base, log, scope)
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.Hook{OnStart: d.Start, OnStop: d.Stop})
	return d, nil
}

func newCheck(d *Delivery) observability.Check {
	return observability.Check{Name: "delivery", Ready: d.Ready}
}

func newWaiver(d *Delivery) observability.Waiver {
	return observability.Waiver{Check: "kafka", Why: d.Spare}
}

func newStartFact(d *Delivery) configs.StartFact {
	return configs.StartFact{Rank: 30, Name: "a 200 means", Text: d.String}
}
