package kafka

import (
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
)

// Section 4.3 of the protocol. The vectors are those of Apache Kafka's own UtilsTest.testMurmur2, as unsigned remainders of the masked hash.
func TestKeysGoToThePartitionThatKafkasOwnClientsChoose(t *testing.T) {
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		const partitions = 1000
		partitioner := sarama.NewMurmur2Partitioner("topic")
		got, err := partitioner.Partition(&sarama.ProducerMessage{Key: sarama.StringEncoder(key)}, partitions)
		require.NoError(t, err)
		require.Equal(t, (hash&0x7fffffff)%partitions, got, key)
	}
	seen := map[int32]bool{}
	partitioner := sarama.NewMurmur2Partitioner("topic")
	for range 200 {
		partition, err := partitioner.Partition(&sarama.ProducerMessage{}, 4)
		require.NoError(t, err)
		seen[partition] = true
	}
	require.Len(t, seen, 4, "messages without a key go everywhere")
}
