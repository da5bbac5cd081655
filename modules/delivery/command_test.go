package delivery_test

import (
	"bytes"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery"
)

// run runs a command line and returns what it prints.
func run(t *testing.T, c *cluster, cfg delivery.Config, command configs.Command, line ...string) (string, error) {
	t.Helper()
	out := new(bytes.Buffer)
	flags := pflag.NewFlagSet(command.Name, pflag.ContinueOnError)
	if command.Flags != nil {
		command.Flags(flags)
	}
	require.NoError(t, flags.Parse(line))
	use := configs.Invocation{Context: t.Context(), Args: flags.Args(), Flags: flags, Out: out, Err: out}
	producer, stop := c.newProducer(c.clientConfig())
	defer stop()
	var err error
	switch command.Name {
	case "spool":
		d, fault := delivery.NewDelivery(cfg, settings(), producer, logger(t), tally.NoopScope)
		require.NoError(t, fault)
		delivery.Hurry(d)
		err = delivery.RunSpool(use, cfg, d)
	case "dlq":
		err = delivery.RunDLQ(use, cfg, settings(), producer, c.reader())
	}
	return out.String(), err
}
