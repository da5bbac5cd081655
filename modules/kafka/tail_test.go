package kafka_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/produce"
)

// output is a writer whose text may be read while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// invocation is a use of tail that prints JSON.
func invocation(ctx context.Context, out io.Writer) module.Invocation {
	return module.Invocation{Context: ctx, Output: module.JSON, Out: out, Err: io.Discard}
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

// events returns messages of a project, as the service writes them.
func events(topic, token string, data ...string) []produce.Message {
	list := make([]produce.Message, len(data))
	for i := range list {
		quoted, _ := json.Marshal(data[i]) // a string can always be marshalled
		list[i] = produce.Message{
			Topic: topic, Key: []byte(token + ":user"),
			Value:   []byte(`{"uuid":"u","data":` + string(quoted) + `,"now":"n"}`),
			Headers: []produce.Header{{Key: []byte("token"), Value: []byte(token)}},
		}
	}
	return list
}

func TestTailPrintsWhatIsKeptAsOneJSONLineEach(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	cfg.Topics.Partitions = 1
	producer, _ := start(t, cfg)
	topic := cfg.Topics.Events
	send(producer, events(topic, "phc_test", `{}`, `{"n":1, "html":"<b>\"&\"</b>"}`)).requireAcknowledged(t)
	send(producer, events(topic, "phc_other", `{}`)).requireAcknowledged(t)
	send(producer, events(topic, "phc_test", `{}`)).requireAcknowledged(t)
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	var out output
	tail := kafka.Tail{Token: "phc_test", FromStart: true, Limit: 3}
	require.NoError(t, tail.Run(invocation(t.Context(), &out), cfg, bootstrap))
	lines := out.lines(t)
	require.Len(t, lines, 3)
	line := lines[1]
	require.Equal(t, topic, line.Topic)
	require.EqualValues(t, 1, line.Offset)
	require.Equal(t, "phc_test:user", *line.Key)
	require.WithinDuration(t, time.Now(), line.Timestamp, time.Minute)
	require.Equal(t, map[string]string{"token": "phc_test"}, line.Headers)
	require.Equal(t, `{"uuid":"u","data":{"n":1,"html":"<b>\"&\"</b>"},"now":"n"}`, string(line.Value))

	var table output
	use := invocation(t.Context(), &table)
	use.Output = module.Table
	require.NoError(t, tail.Run(use, cfg, bootstrap))
	rows := strings.Split(table.String(), "\n")
	require.Len(t, rows, 5)
	require.Regexp(t, `^time +topic +partition/offset +token +distinct_id +event$`, rows[0])
	require.Regexp(t, `^\S+Z  `+topic+`  0/1 +phc_test +- +-$`, rows[2])
}

func TestTailFollowsFromNowUntilInterrupted(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, _ := start(t, cfg)
	send(producer, messages(cfg.Topics.Events, 0, 1)).requireAcknowledged(t)
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out output
	ended := make(chan error, 1)
	go func() {
		ended <- kafka.Tail{Topics: []string{cfg.Topics.Events}}.Run(invocation(ctx, &out), cfg, bootstrap)
	}()
	for deadline := time.Now().Add(patience); len(out.lines(t)) == 0; {
		send(producer, messages(cfg.Topics.Events, 1, 1)).requireAcknowledged(t)
		select {
		case err := <-ended:
			require.Fail(t, "tail has ended", "%v", err)
		case <-time.After(20 * time.Millisecond):
			require.True(t, time.Now().Before(deadline), "tail prints nothing")
		}
	}
	require.Positive(t, out.lines(t)[0].Offset, "what was there before is not printed")
	interrupt()
	require.NoError(t, <-ended)
}

func TestTailSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	use := invocation(t.Context(), &output{})
	require.EqualError(t, kafka.Tail{Topics: []string{"nope"}}.Run(use, cfg, bootstrap), "no such topic: nope")
	require.EqualError(t, kafka.Tail{}.Run(use, cfg, bootstrap), "none of the topics exists: "+cfg.Topics.Events)

	cfg.Brokers = nil
	address := freeAddress(t)
	bootstrap, err = kafka.NewBootstrap(cfg, local(address))
	require.NoError(t, err)
	require.EqualError(t, kafka.Tail{}.Run(use, cfg, bootstrap),
		"no broker answers at "+address+": is `capture serve` running?")

	cfg.Brokers = []string{address}
	bootstrap, err = kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	require.ErrorContains(t, kafka.Tail{}.Run(use, cfg, bootstrap), "no broker answers at "+address)
}
