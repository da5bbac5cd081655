package kafka_test

import (
	"testing"

	"github.com/IBM/sarama"
	gometrics "github.com/rcrowley/go-metrics"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/opencapture/capture/modules/kafka"
)

// produceDirectly opens a connection to the topic's broker. The function that it returns sends one request of one
// message.
func produceDirectly(t testing.TB, broker *kfake.Cluster, config *sarama.Config) func() error {
	t.Helper()
	require.NoError(t, broker.CreateTopic("t", 1, nil))
	client, err := sarama.NewClient(broker.ListenAddrs(), config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	leader, err := client.Leader("t", 0)
	require.NoError(t, err)
	records := &sarama.RecordBatch{
		Version: 2, FirstSequence: -1, ProducerID: -1, ProducerEpoch: -1,
		Records: []*sarama.Record{{Value: []byte("value")}},
	}
	return func() error {
		request := &sarama.ProduceRequest{Version: 7, RequiredAcks: sarama.WaitForAll, Timeout: 1000}
		request.AddBatch("t", 0, records)
		response, err := leader.Produce(request)
		if err != nil {
			return err
		}
		if code := response.GetBlock("t", 0).Err; code != sarama.ErrNoError {
			return code
		}
		return nil
	}
}

func TestSaramaProducesWithoutMetrics(t *testing.T) {
	broker := fake(t)
	config, err := kafka.ClientConfig(config(broker.ListenAddrs()...))
	require.NoError(t, err)
	config.Producer.Return.Successes = true
	produce := produceDirectly(t, broker, config)
	require.NoError(t, produce())
	require.Equal(t, kafka.NoMetrics{}, config.MetricRegistry)

	producer, err := sarama.NewSyncProducer(broker.ListenAddrs(), config)
	require.NoError(t, err)
	_, offset, err := producer.SendMessage(&sarama.ProducerMessage{Topic: "t", Value: sarama.StringEncoder("v")})
	require.NoError(t, err)
	require.EqualValues(t, 1, offset)
	require.NoError(t, producer.Close())
	config.MetricRegistry.Each(func(name string, _ any) { t.Errorf("%s is kept", name) })
	require.Empty(t, config.MetricRegistry.GetAll())
	require.Nil(t, config.MetricRegistry.Get("request-rate"))
}

func TestEveryKindOfMetricDoesNothing(t *testing.T) {
	registry := kafka.NoMetrics{}
	require.Equal(t, gometrics.NilMeter{}, gometrics.GetOrRegisterMeter("m", registry))
	require.Equal(t, gometrics.NilCounter{}, gometrics.GetOrRegisterCounter("c", registry))
	require.Equal(t, gometrics.NilGauge{}, gometrics.GetOrRegisterGauge("g", registry))
	require.Equal(t, gometrics.NilGaugeFloat64{}, gometrics.GetOrRegisterGaugeFloat64("f", registry))
	require.Equal(t, gometrics.NilTimer{}, gometrics.GetOrRegisterTimer("t", registry))
	sample := gometrics.NewUniformSample(1)
	histogram := gometrics.NewHistogram(sample)
	require.Equal(t, gometrics.NilHistogram{}, gometrics.GetOrRegisterHistogram("h", registry, sample))
	require.Equal(t, gometrics.NilHistogram{}, registry.GetOrRegister("h", histogram))
	require.NoError(t, registry.Register("h", histogram))
	require.Nil(t, registry.Get("h"))
	require.Equal(t, "another kind", registry.GetOrRegister("a", "another kind"))
}

// The difference between the two is the cost of the metrics of one request.
func BenchmarkProduceRequest(b *testing.B) {
	registries := map[string]gometrics.Registry{"metrics": gometrics.NewRegistry(), "none": kafka.NoMetrics{}}
	for name, registry := range registries {
		b.Run(name, func(b *testing.B) {
			broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(b.TempDir()))
			require.NoError(b, err)
			b.Cleanup(broker.Close)
			config, err := kafka.ClientConfig(config(broker.ListenAddrs()...))
			require.NoError(b, err)
			config.MetricRegistry = registry
			produce := produceDirectly(b, broker, config)
			b.ReportAllocs()
			for b.Loop() {
				if err := produce(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
