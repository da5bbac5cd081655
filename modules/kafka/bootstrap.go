package kafka

import (
	"errors"
	"fmt"
	"strings"
)

// LocalBroker is a broker in this process, for a service without a cluster. It joins the value group "kafka_brokers".
type LocalBroker interface {
	// Address is where the broker listens, as host:port: the configured address before the broker starts, then the real
	// one.
	Address() string

	// String describes the broker for a human.
	String() string
}

// Bootstrap holds the brokers to connect to first: those of the configuration, or else the local one.
type Bootstrap struct {
	brokers []string
	local   LocalBroker
}

// NewBootstrap takes the section's brokers, or the single local broker if there are none.
func NewBootstrap(cfg Config, locals ...LocalBroker) (*Bootstrap, error) {
	switch {
	case len(cfg.Brokers) > 0:
		return &Bootstrap{brokers: cfg.Brokers}, nil
	case len(locals) == 1:
		return &Bootstrap{local: locals[0]}, nil
	case len(locals) == 0:
		return nil, errors.New("kafka.brokers is empty and this build has no embedded broker: " +
			"set kafka.brokers or include modules/embedded")
	default:
		return nil, fmt.Errorf("kafka.brokers is empty and this build has %d embedded brokers: include one",
			len(locals))
	}
}

// Addresses returns the brokers' addresses. The address of a local broker may change when the broker starts, so ask for
// it when connecting.
func (b *Bootstrap) Addresses() []string {
	if b.local != nil {
		return []string{b.local.Address()}
	}
	return b.brokers
}

func (b *Bootstrap) String() string {
	if b.local != nil {
		return b.local.String()
	}
	return "Kafka at " + strings.Join(b.brokers, ", ")
}
