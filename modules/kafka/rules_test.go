package kafka_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
)

// expected is what the producer must do about an error code.
type expected struct {
	code  *kerr.Error
	does  string
	class produce.Class // of the report if that does not help
	// unsure is set if the broker may have appended the batch in spite of the error.
	unsure bool
}

// errUnknownCode is a code that Kafka does not have.
var errUnknownCode = &kerr.Error{Message: "UNHEARD_OF", Code: 12345}

// rules holds all codes, as Kafka's documentation and source define them.
var rules = []expected{
	{&kerr.Error{Message: "NONE"}, "ack", 0, false},
	{kerr.DuplicateSequenceNumber, "ack", 0, false},

	{kerr.UnknownTopicOrPartition, "retry", produce.Missing, true},
	{kerr.UnknownTopicID, "retry", produce.Missing, true},
	{kerr.LeaderNotAvailable, "retry", produce.Unavailable, true},
	{kerr.NotLeaderForPartition, "retry", produce.Unavailable, true},
	{kerr.ReplicaNotAvailable, "retry", produce.Unavailable, true},
	{kerr.BrokerNotAvailable, "retry", produce.Unavailable, true},
	{kerr.KafkaStorageError, "retry", produce.Unavailable, true},
	{kerr.FencedLeaderEpoch, "retry", produce.Unavailable, true},
	{kerr.UnknownLeaderEpoch, "retry", produce.Unavailable, true},
	{kerr.NetworkException, "retry", produce.Unavailable, true},
	{kerr.UnknownServerError, "retry", produce.Unavailable, true},
	{kerr.CorruptMessage, "retry", produce.Unavailable, false},
	{kerr.RequestTimedOut, "retry", produce.Timeout, true},
	{kerr.NotEnoughReplicas, "retry", produce.Unavailable, false},
	{kerr.NotEnoughReplicasAfterAppend, "retry", produce.Unavailable, true},
	{kerr.ThrottlingQuotaExceeded, "retry", produce.Unavailable, false},
	{errUnknownCode, "retry", produce.Unavailable, true},

	{kerr.MessageTooLarge, "split", produce.TooLarge, false},
	{kerr.RecordListTooLarge, "split", produce.TooLarge, false},
	{kerr.InvalidRecord, "split", produce.Invalid, false},
	{kerr.InvalidTopicException, "split", produce.Invalid, false},
	{kerr.PolicyViolation, "split", produce.Invalid, false},
	{kerr.UnsupportedForMessageFormat, "split", produce.Invalid, false},

	{kerr.InvalidTimestamp, "restamp", produce.Unavailable, false},

	{kerr.OutOfOrderSequenceNumber, "renew", produce.Unavailable, false},
	{kerr.InvalidProducerEpoch, "renew", produce.Unavailable, false},
	{kerr.UnknownProducerID, "renew id", produce.Unavailable, false},
	{kerr.InvalidProducerIDMapping, "renew id", produce.Unavailable, false},
	{kerr.ProducerFenced, "renew id", produce.Unavailable, false},
	{kerr.InvalidTxnState, "renew id", produce.Unavailable, false},

	{kerr.TopicAuthorizationFailed, "fail", produce.Forbidden, false},
	{kerr.ClusterAuthorizationFailed, "fail", produce.Forbidden, false},
	{kerr.TransactionalIDAuthorizationFailed, "fail", produce.Forbidden, false},
	{kerr.SaslAuthenticationFailed, "fail", produce.Forbidden, false},
	{kerr.InvalidRequiredAcks, "fail", produce.Unavailable, false},
	{kerr.UnsupportedVersion, "fail", produce.Unavailable, false},
	{kerr.UnsupportedCompressionType, "fail", produce.Unavailable, false},
	{kerr.InvalidRequest, "fail", produce.Unavailable, false},
}

// that returns the rules with one of these actions.
func that(does ...string) []expected {
	return slices.DeleteFunc(slices.Clone(rules), func(e expected) bool { return !slices.Contains(does, e.does) })
}

// topicOf names a topic by an error code.
func topicOf(code *kerr.Error) string { return strings.ToLower(code.Message) }

func TestThereIsARuleForEveryCode(t *testing.T) {
	t.Parallel()
	codes := kafka.Codes()
	require.Len(t, rules, len(codes)+1, "and what is done about an unknown code")
	for _, e := range rules {
		does, class, unsure := kafka.Rule(e.code.Code)
		require.Equal(t, expected{e.code, does, class, unsure}, e)
		require.Equal(t, e.code != errUnknownCode, slices.Contains(codes, e.code.Code), e.code.Message)
	}
}

// One producer sends a batch to a topic for each code, and the broker refuses each batch twice with the topic's code. A
// broker that has appended the batch recognises the copies by their numbers.
func TestWhatPassesIsTriedAgainWithTheSameNumbers(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	came := watch(broker)
	var list []produce.Message
	for _, e := range that("retry") {
		createTopics(t, broker, topicOf(e.code))
		refuse(broker, topicOf(e.code), e.code, 2)
		list = append(list, messages(topicOf(e.code), 0, 6)...)
	}
	send(producer, list).requireAcknowledged(t)
	for _, e := range that("retry") {
		batches := came.of(topicOf(e.code))
		require.Len(t, batches, 3, e.code.Message)
		require.Equal(t, values(0, 6), batches[0].values)
		require.Equal(t, batches[0], batches[1], e.code.Message)
		require.Equal(t, batches[0], batches[2], e.code.Message)
		requireArrived(t, cfg.Brokers, topicOf(e.code), values(0, 6))
	}
}

// The broker answers with the topic's error for good. The batch fails with the class of the error. The messages that
// were produced behind the batch meanwhile fail because the batch did. The topic takes later messages.
func TestWhatDoesNotPassFailsWithAllThatIsBehindIt(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.AckTimeout = 3 * time.Second
	producer, _ := start(t, cfg)
	failing := that("retry", "renew", "renew id", "restamp", "fail")
	var first, second, third []produce.Message
	for _, e := range failing {
		topic := topicOf(e.code)
		createTopics(t, broker, topic)
		first, second = append(first, messages(topic, 0, 3)...), append(second, messages(topic, 3, 3)...)
		third = append(third, messages(topic, 6, 3)...)
	}
	require.Eventually(t, func() bool { // so that all leaders are known and first is one request
		return !slices.ContainsFunc(send(producer, third).wait(t), func(err error) bool { return err != nil })
	}, patience, time.Millisecond)
	var faults []*kfake.FaultHandle
	for _, e := range failing {
		faults = append(faults, refuse(broker, topicOf(e.code), e.code, -1))
	}
	came := watch(broker)
	release := hold(broker)
	defer release()
	batch := send(producer, first)
	for _, e := range failing {
		came.await(t, topicOf(e.code), 1)
	}
	behind := send(producer, second)
	release()
	for i, err := range batch.wait(t) {
		e := failing[i/3]
		require.Error(t, err)
		require.Equal(t, e.class, produce.ClassOf(err), "%s: %v", e.code.Message, err)
		require.ErrorContains(t, err, topicOf(e.code), "the report names the topic")
	}
	behind.requireFailed(t, produce.Behind)
	for _, fault := range faults {
		fault.Remove()
	}
	send(producer, third).requireAcknowledged(t)
}

func TestADuplicateIsAnAcknowledgement(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	came := watch(broker)
	refuse(broker, cfg.Topics.Events, kerr.DuplicateSequenceNumber, 1)
	send(producer, messages(cfg.Topics.Events, 0, 6)).requireAcknowledged(t)
	require.Len(t, came.of(cfg.Topics.Events), 1)
}

func TestNumbersThatKafkaDoesNotAcceptAreRenewed(t *testing.T) {
	t.Parallel()
	for _, e := range that("renew", "renew id") {
		t.Run(e.code.Message, func(t *testing.T) {
			t.Parallel()
			broker := fake(t)
			cfg := plain(broker.ListenAddrs()...)
			producer, _ := start(t, cfg)
			send(producer, messages(cfg.Topics.Events, 0, 4)).requireAcknowledged(t)
			came := watch(broker)
			refuse(broker, cfg.Topics.Events, e.code, 1)
			send(producer, messages(cfg.Topics.Events, 4, 4)).requireAcknowledged(t)
			batches := came.of(cfg.Topics.Events)
			require.Len(t, batches, 2)
			require.EqualValues(t, 4, batches[0].sequence)
			require.Zero(t, batches[1].sequence)
			if e.does == "renew" {
				require.Equal(t, batches[0].id, batches[1].id)
				require.Equal(t, batches[0].epoch+1, batches[1].epoch)
			} else {
				require.NotEqual(t, batches[0].id, batches[1].id)
			}
			requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, 8))
		})
	}
}

// guilty holds the indexes of the messages, in a batch of 200, that a broker refuses.
var guilty = []int{0, 100, 101, 199}

// requireOnlyTheGuilty requires that of 200 messages only the guilty ones were refused, and that the others have
// arrived, in order.
func requireOnlyTheGuilty(t *testing.T, cfg kafka.Config, r *reports, class produce.Class) {
	t.Helper()
	r.requireInOrder(t)
	want := values(0, 200)
	for i, err := range r.wait(t) {
		if !slices.Contains(guilty, i) {
			require.NoError(t, err, "message %d", i)
			continue
		}
		require.True(t, produce.IsRefusal(err), "message %d: %v", i, err)
		require.Equal(t, class, produce.ClassOf(err))
	}
	for _, i := range slices.Backward(guilty) {
		want = slices.Delete(want, i, i+1)
	}
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, want)
}

func TestOnlyTheGuiltyAreRefused(t *testing.T) {
	t.Parallel()
	for _, e := range that("split") {
		t.Run(e.code.Message, func(t *testing.T) {
			t.Parallel()
			broker := fake(t)
			cfg := plain(broker.ListenAddrs()...)
			producer, scope := start(t, cfg)
			list := messages(cfg.Topics.Events, 0, 200)
			for _, i := range guilty { // so large that the learnt limit still fits the others
				list[i].Headers = []produce.Header{{Key: []byte("x"), Value: make([]byte, 3000)}}
			}
			isGuilty := func(s seen) bool {
				return slices.ContainsFunc(guilty, func(i int) bool { return s.has(string(list[i].Value)) })
			}
			refuseIf(broker, cfg.Topics.Events, e.code, isGuilty)
			came := watch(broker)
			requireOnlyTheGuilty(t, cfg, send(producer, list), e.class)
			for _, b := range came.of(cfg.Topics.Events) {
				require.Equal(t, came.batches[0].epoch, b.epoch, "nothing was appended: the numbers are still good")
			}
			require.NoError(t, producer.Flush(t.Context()))
			require.EqualValues(t, len(guilty), counter(scope, "messages_failed_total+class="+e.class.String()))
		})
	}
}

func TestOnlyWhatIsTooLargeForItsTopicIsRefused(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	require.NoError(t, broker.CreateTopic(cfg.Topics.Events, 1, map[string]string{"max.message.bytes": "2000"}))
	producer, _ := start(t, cfg)
	list := messages(cfg.Topics.Events, 0, 200)
	for _, i := range guilty {
		list[i].Headers = []produce.Header{{Key: []byte("x"), Value: []byte(strings.Repeat("x", 3000))}}
	}
	came := watch(broker)
	requireOnlyTheGuilty(t, cfg, send(producer, list), produce.TooLarge)
	before := len(came.of(cfg.Topics.Events))
	send(producer, messages(cfg.Topics.Events, 200, 200)).requireAcknowledged(t)
	for _, b := range came.of(cfg.Topics.Events)[before:] {
		require.Less(t, len(b.values), 200, "what the topic takes is known by now")
	}
}

// A broker says in its own words which message is at fault.
func TestARefusalHasTheBrokersWords(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	broker.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		response := request.ResponseKind().(*kmsg.ProduceResponse)
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic = cfg.Topics.Events
		partition := kmsg.NewProduceResponseTopicPartition()
		partition.ErrorCode = kerr.InvalidRecord.Code
		partition.ErrorMessage = kmsg.StringPtr("one thing")
		record := kmsg.NewProduceResponseTopicPartitionErrorRecord()
		record.ErrorMessage = kmsg.StringPtr("compacted topics need keys")
		partition.ErrorRecords = append(partition.ErrorRecords, record)
		topic.Partitions = append(topic.Partitions, partition)
		response.Topics = append(response.Topics, topic)
		return response, nil, true
	})
	errs := send(producer, messages(cfg.Topics.Events, 0, 1)).wait(t)
	require.ErrorContains(t, errs[0], "(compacted topics need keys)")
}

// An earlier attempt to send the refused message may have been appended. Kafka must not take the message behind it for
// a copy of that attempt.
func TestWhatIsBehindARefusedMessageIsNotTakenForACopy(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	refuse(broker, cfg.Topics.Events, kerr.RequestTimedOut, 1) // and append
	refuse(broker, cfg.Topics.Events, kerr.MessageTooLarge, 1)
	errs := send(producer, messages(cfg.Topics.Events, 0, 1)).wait(t)
	require.True(t, produce.IsRefusal(errs[0]), "%v", errs[0])
	send(producer, messages(cfg.Topics.Events, 1, 1)).requireAcknowledged(t)
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, 2))
}

func TestATimeThatKafkaRefusesBecomesThePresent(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	began := time.Now().Truncate(time.Millisecond)
	refuseIf(broker, cfg.Topics.Events, kerr.InvalidTimestamp, func(s seen) bool {
		return slices.ContainsFunc(s.times, func(at time.Time) bool { return at.Before(began) })
	})
	list := messages(cfg.Topics.Events, 0, 4)
	list[1].Time = time.Now().Add(-time.Hour)
	send(producer, list).requireAcknowledged(t)
	send(producer, messages(cfg.Topics.Events, 4, 4)).requireAcknowledged(t)
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, 8))

	refuse(broker, cfg.Topics.Events, kerr.InvalidTimestamp, -1)
	for _, at := range []time.Time{{}, time.Now().Add(-time.Hour)} {
		// A producer that is still busy with the first failure would report the second message as behind it.
		producer, _ := start(t, cfg)
		list := messages(cfg.Topics.Events, 8, 1)
		list[0].Time = at
		r := send(producer, list)
		r.requireFailed(t, produce.Unavailable)
		require.ErrorContains(t, r.errs[0], "clock")
	}
}

// ruleTable is the table of docs/delivery.md.
func ruleTable() string {
	words := map[string]string{
		"ack": "takes it for an acknowledgement", "retry": "tries again until `kafka.ack_timeout`",
		"split":    "sends the batch in halves, until only the messages at fault are refused",
		"restamp":  "sends the batch with the present time",
		"renew":    "numbers the batch anew, in another epoch, and tries again until `kafka.ack_timeout`",
		"renew id": "numbers the batch anew, under another producer id, and tries again until `kafka.ack_timeout`",
		"fail":     "gives up at once",
	}
	var table strings.Builder
	table.WriteString("| Kafka error | what the producer does | report if that does not help |\n|---|---|---|\n")
	var rows []string
	codes := map[string][]string{}
	for _, e := range rules {
		name := "`" + e.code.Message + "`"
		if e.code == errUnknownCode {
			name = "any other"
		}
		report := "`" + e.class.String() + "`"
		switch e.does {
		case "ack":
			report = "—"
		case "split":
			report += ", a dead letter"
		}
		row := fmt.Sprintf("%s | %s |", words[e.does], report)
		if codes[row] == nil {
			rows = append(rows, row)
		}
		codes[row] = append(codes[row], name)
	}
	for _, row := range rows {
		fmt.Fprintf(&table, "| %s | %s\n", strings.Join(codes[row], ", "), row)
	}
	return table.String()
}

func TestTheDocumentationHasEveryCode(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/delivery.md")
	require.NoError(t, err)
	require.Contains(t, string(text), ruleTable())
}

func TestBackoffHasAPauseForEveryFurtherAttempt(t *testing.T) {
	t.Parallel()
	for _, retry := range []int{1, 2, 10, 100} {
		require.Positive(t, kafka.Backoff(retry))
		require.LessOrEqual(t, kafka.Backoff(retry), time.Second)
	}
}

// The producer makes a report without holding its lock.
func TestAReportMayProduce(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	producer, _ := start(t, cfg)
	again := make(chan *reports, 1)
	sendAnd(producer, messages(cfg.Topics.Events, 0, 1), func(int, error) {
		again <- send(producer, messages(cfg.Topics.Events, 1, 1))
	}).requireAcknowledged(t)
	(<-again).requireAcknowledged(t)
	requireArrived(t, cfg.Brokers, cfg.Topics.Events, values(0, 2))
}

var errCut = errors.New("the broker cuts the connection")
