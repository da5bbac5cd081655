package produce_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/produce"
)

func TestTopicsThatShareANameAreListedOnce(t *testing.T) {
	topics := produce.DefaultTopics()
	require.ElementsMatch(t, []string{
		"clickhouse_events", "clickhouse_session_recording_events", "historical_events", "client_warnings",
		"exceptions", "events_overflow",
		"session_recording_overflow", "heatmaps", "ai_events", "logs", "events_dlq",
	}, topics.Names())
	topics.AIOverflow = "ai_overflow"
	topics.Custom = []string{"quarantine", "vip", topics.Events}
	require.Len(t, topics.Names(), 14)
	topics.AI = topics.Events
	topics.Historical = topics.Events
	require.Len(t, topics.Names(), 12)
}

func TestWhatKafkaAllowsForATopic(t *testing.T) {
	for _, name := range []string{"a", "Events_v2.eu-1", "...", strings.Repeat("x", produce.LongestTopicName)} {
		require.True(t, produce.IsTopicName(name), name)
	}
	for _, name := range []string{"", ".", "..", "a b", "a/b", "é", strings.Repeat("x", produce.LongestTopicName+1)} {
		require.False(t, produce.IsTopicName(name), name)
	}
}

func TestATopicThatOtherStreamsShareIsNoOverflow(t *testing.T) {
	topics := produce.DefaultTopics()
	require.Equal(t, []string{"events_overflow", "session_recording_overflow"}, topics.Overflows())
	topics.AIOverflow, topics.RecordingsOverflow = "ai_overflow", topics.Events
	require.Equal(t, []string{"events_overflow", "ai_overflow"}, topics.Overflows())
}
