package kafka_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
)

// output is a writer that may be read while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) lines(t *testing.T) []kafka.Line {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	var lines []kafka.Line
	for text := range strings.Lines(o.text.String()) {
		var line kafka.Line
		require.NoError(t, json.Unmarshal([]byte(text), &line))
		lines = append(lines, line)
	}
	return lines
}

func TestTailPrintsWhatIsKeptAsOneJSONLineEach(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, _ := start(t, cfg)
	mine, other := batch(0, 3), batch(10, 1)
	mine.Events[1].Raw.Properties = []byte(`{"n":1, "html":"<b>\"&\"</b>"}`)
	other.Token = "phc_other"
	for _, b := range []*events.Batch{mine, other} {
		producer.Write(t.Context(), b)
		requireAll(t, b, events.StateAccepted, "")
	}
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	var out output
	require.NoError(t, kafka.Tail{Token: "phc_test", FromStart: true, Limit: 3}.Run(t.Context(), cfg, bootstrap, &out))
	lines := out.lines(t)
	require.Len(t, lines, 3)
	line := lines[1]
	require.Equal(t, cfg.Topics.Events, line.Topic)
	require.EqualValues(t, 1, line.Offset)
	require.Equal(t, "phc_test:user", *line.Key)
	require.WithinDuration(t, time.Now(), line.Timestamp, time.Minute)
	require.Equal(t, mine.Events[1].UUID.String(), line.Headers["uuid"])
	require.True(t, strings.HasPrefix(string(line.Value), `{"uuid":"`+mine.Events[1].UUID.String()+`","distinct_id":"user","ip":"203.0.113.7",`+
		`"data":{"uuid":null,"event":"e","properties":{"n":1,"html":"<b>\"&\"</b>"}},"now":"`), "%s", line.Value)
}

func TestTailFollowsFromNowUntilInterrupted(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, _ := start(t, cfg)
	before := batch(0, 1)
	producer.Write(t.Context(), before)
	requireAll(t, before, events.StateAccepted, "")

	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out output
	ended := make(chan error, 1)
	go func() { ended <- kafka.Tail{Topics: []string{cfg.Topics.Events}}.Run(ctx, cfg, bootstrap, &out) }()
	require.Eventually(t, func() bool {
		b := batch(1, 1)
		producer.Write(t.Context(), b)
		return len(out.lines(t)) > 0
	}, patience, 20*time.Millisecond)
	require.Positive(t, out.lines(t)[0].Offset, "what was there before is not printed")
	interrupt()
	require.NoError(t, <-ended)
}

func TestTailSaysWhatIsMissing(t *testing.T) {
	cfg := config(cluster(t)...)
	cfg.ConnectTimeout = time.Second
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	require.EqualError(t, kafka.Tail{Topics: []string{"nope"}}.Run(t.Context(), cfg, bootstrap, &output{}), "no such topic: nope")
	require.EqualError(t, kafka.Tail{}.Run(t.Context(), cfg, bootstrap, &output{}), "none of the topics exists: "+cfg.Topics.Events)

	cfg.Brokers = nil
	address := freeAddress(t)
	bootstrap, err = kafka.NewBootstrap(cfg, local(address))
	require.NoError(t, err)
	require.EqualError(t, kafka.Tail{}.Run(t.Context(), cfg, bootstrap, &output{}), "no broker answers at "+address+": is `capture serve` running?")

	cfg.Brokers = []string{address}
	bootstrap, err = kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	require.ErrorContains(t, kafka.Tail{}.Run(t.Context(), cfg, bootstrap, &output{}), "no broker answers at "+address)
}
