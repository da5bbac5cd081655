package kafka_test

import (
	"math/rand/v2"
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/kafka"
)

// This is section 4.3 of the protocol. The vectors are those of Apache Kafka's own UtilsTest.testMurmur2.
func TestKeysGoToThePartitionThatKafkasOwnClientsChoose(t *testing.T) {
	t.Parallel()
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		const partitions = 1000
		require.EqualValues(t, (hash&0x7fffffff)%partitions, kafka.PartitionOf([]byte(key), partitions), key)
	}
	partitioner := sarama.NewMurmur2Partitioner("topic")
	for range 10_000 {
		key := make([]byte, rand.IntN(40))
		for i := range key {
			key[i] = byte(rand.Uint32())
		}
		partitions := 1 + rand.IntN(100)
		want, err := partitioner.Partition(&sarama.ProducerMessage{Key: sarama.ByteEncoder(key)}, int32(partitions))
		require.NoError(t, err)
		require.EqualValues(t, want, kafka.PartitionOf(key, partitions), "%x of %d", key, partitions)
	}
}
