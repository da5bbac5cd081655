package kafka_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/embedded"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/produce"
)

// parts is the part of the module that the rest of a build takes.
type parts struct {
	fx.In

	Producer  produce.Producer
	Reader    produce.Reader
	Settings  produce.Settings
	Bootstrap *kafka.Bootstrap
}

// graph is a build of kafka and embedded, with a broker on a free port.
func graph(t *testing.T, cfg kafka.Config, more ...fx.Option) (*fxtest.App, *parts) {
	t.Helper()
	local := embedded.DefaultConfig()
	local.DataDir, local.KafkaListen = t.TempDir(), "127.0.0.1:0"
	var p parts
	app := fxtest.New(t, append(more,
		fx.NopLogger,
		fx.Supply(cfg, configs.Fixed(cfg), local, zap.NewNop(), fx.Annotate(tally.NoopScope, fx.As(new(tally.Scope)))),
		kafka.Module().Options, embedded.Module().Options,
		fx.Invoke(func(in parts) { p = in }),
	)...)
	return app, &p
}

func TestWithoutBrokersTheModulesServeTheEmbeddedOne(t *testing.T) {
	t.Parallel()
	cfg := kafka.DefaultConfig()
	app, p := graph(t, cfg)
	require.Error(t, p.Producer.Ready())
	require.Equal(t, produce.Settings{Topics: cfg.Topics, MaxMessageBytes: int(cfg.MaxMessageBytes)}, p.Settings)
	app.RequireStart()
	require.Eventually(t, func() bool { return p.Producer.Ready() == nil }, patience, time.Millisecond)
	require.Regexp(t, `^embedded broker at 127\.0\.0\.1:\d+ \(one node, not replicated\), data in /`,
		p.Producer.(fmt.Stringer).String())
	send(p.Producer.(*kafka.Producer), messages(cfg.Topics.Events, 0, 5)).requireAcknowledged(t)
	read := 0
	require.NoError(t, p.Reader.ReadTopic(t.Context(), cfg.Topics.Events,
		func(int32, int64, *produce.Message) error { read++; return nil }))
	require.Equal(t, 5, read)

	flags := pflag.NewFlagSet("tail", pflag.ContinueOnError)
	command := kafka.Module().Commands[0]
	command.Flags(flags)
	require.NoError(t, flags.Parse([]string{"--from", "start", "--limit", "5", "--topic", cfg.Topics.Events}))
	run := command.Run.(func(module.Invocation, kafka.Config, *kafka.Bootstrap) error)
	var out bytes.Buffer
	require.NoError(t, run(invocation(t.Context(), &out), cfg, p.Bootstrap))
	require.Equal(t, 5, bytes.Count(out.Bytes(), []byte("\n")))
	app.RequireStop()
}

func TestWithBrokersTheEmbeddedOneIsNotStarted(t *testing.T) {
	t.Parallel()
	cfg := kafka.DefaultConfig()
	cfg.Brokers = cluster(t)
	app, p := graph(t, cfg)
	app.RequireStart()
	require.Eventually(t, func() bool { return p.Producer.Ready() == nil }, patience, 10*time.Millisecond)
	require.Equal(t, "Kafka at "+cfg.Brokers[0]+", topic clickhouse_events", p.Producer.(fmt.Stringer).String())
	app.RequireStop()
}

// silent is a producer that acknowledges everything.
type silent struct{}

func (silent) Produce(messages []produce.Message, report func(int, error)) {
	for i := range messages {
		report(i, nil)
	}
}
func (silent) Flush(context.Context) error { return nil }
func (silent) Ready() error                { return nil }
func (silent) Start(context.Context) error { return nil }
func (silent) Stop(context.Context) error  { return nil }

func TestOverridingTheProducerBuildsNoClientAndNoBroker(t *testing.T) {
	t.Parallel()
	cfg := kafka.DefaultConfig()
	cfg.TLS = kafka.TLS{Enabled: true, CAFile: "no/such/file"} // the build of a client would fail
	app, p := graph(t, cfg, fx.Decorate(func() produce.Producer { return silent{} }))
	app.RequireStart()
	require.NoError(t, p.Producer.Ready())
	app.RequireStop()
}

// A graph that is built and never started, as for a picture of the graph, leaves no goroutine behind: see TestMain.
func TestAGraphThatIsNotStartedLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	_, p := graph(t, kafka.DefaultConfig())
	require.NotNil(t, p.Producer)
}
