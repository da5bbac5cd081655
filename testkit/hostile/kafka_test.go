//go:build hostile && linux

package hostile

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kafka starts a broker in this process that acknowledges every message and keeps none, so that its memory is no part
// of what is measured. It returns the broker's address.
func kafka(t *testing.T) string {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(3))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	type place struct {
		topic     string
		id        [16]byte
		partition int32
	}
	next := map[place]int64{} // The broker handles one request at a time.
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		request := r.(*kmsg.ProduceRequest)
		response := request.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range request.Topics {
			answer := kmsg.NewProduceResponseTopic()
			answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
			for _, partition := range topic.Partitions {
				at := place{topic.Topic, topic.TopicID, partition.Partition}
				acknowledged := kmsg.NewProduceResponseTopicPartition()
				acknowledged.Partition, acknowledged.BaseOffset = partition.Partition, next[at]
				var batch kmsg.RecordBatch
				if err := batch.ReadFrom(partition.Records); err != nil {
					return nil, err, true
				}
				next[at] += int64(batch.NumRecords)
				answer.Partitions = append(answer.Partitions, acknowledged)
			}
			response.Topics = append(response.Topics, answer)
		}
		return response, nil, true
	})
	return cluster.ListenAddrs()[0]
}
