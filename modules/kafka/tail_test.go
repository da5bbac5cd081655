package kafka_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

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

// invocation is a use of tail.
func invocation(ctx context.Context, out io.Writer) module.Invocation {
	return module.Invocation{Context: ctx, Out: out, Err: io.Discard}
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
	tail := kafka.Tail{Token: "phc_test", Limit: 3, Format: "json"}
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

	var pretty output
	tail.Format = "pretty"
	require.NoError(t, tail.Run(invocation(t.Context(), &pretty), cfg, bootstrap))
	rows := strings.Split(pretty.String(), "\n")
	require.Len(t, rows, 4)
	require.Regexp(t, `^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  - +- +u  \(`+topic+`/0/1\)$`, rows[1])
}

func TestTailBeginsWithTheNewestEventsThatMatch(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, _ := start(t, cfg)
	topic := cfg.Topics.Events
	for i := range 15 {
		list := events(topic, "phc_test", fmt.Sprintf(`{"n":%d}`, i))
		list[0].Headers = append(list[0].Headers,
			produce.Header{Key: []byte("event"), Value: []byte([]string{"even", "odd"}[i%2])},
			produce.Header{Key: []byte("distinct_id"), Value: []byte(fmt.Sprint("user-", i%3))})
		send(producer, list).requireAcknowledged(t)
	}
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	for want, tail := range map[string]kafka.Tail{
		"5 6 7 8 9 10 11 12 13 14": {},
		"12 13 14":                 {Limit: 3},
		"13":                       {Limit: 1, Event: "odd"},
		"1 3 5 7 9 11 13":          {Event: "odd"},
		"3 9":                      {Event: "odd", DistinctID: "user-0"},
		"":                         {Token: "phc_other"},
	} {
		var out output
		tail.From, tail.Format = kafka.Start{Recent: true}, "json"
		require.NoError(t, tail.Run(invocation(t.Context(), &out), cfg, bootstrap))
		var got []string
		for _, line := range out.lines(t) {
			var value struct{ Data struct{ N int } }
			require.NoError(t, json.Unmarshal(line.Value, &value))
			got = append(got, fmt.Sprint(value.Data.N))
		}
		require.Equal(t, want, strings.Join(got, " "))
	}
}

// The embedded broker keeps no index of times.
func TestTailBeginsAtATimeWithEveryBroker(t *testing.T) {
	t.Parallel()
	for name, brokers := range map[string][]string{
		"a cluster": cluster(t), "the embedded broker": {startEmbedded(t, "127.0.0.1:0").Address()},
	} {
		cfg := config(brokers...)
		producer, _ := start(t, cfg)
		first := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
		list := events(cfg.Topics.Events, "phc_test", `{}`, `{}`, `{}`, `{}`)
		for i := range list {
			list[i].Time = first.Add(time.Duration(i) * time.Millisecond)
		}
		send(producer, list).requireAcknowledged(t)
		bootstrap, err := kafka.NewBootstrap(cfg)
		require.NoError(t, err)
		read := func(tail kafka.Tail) []kafka.Line {
			var out output
			tail.Format = "json"
			require.NoError(t, tail.Run(invocation(t.Context(), &out), cfg, bootstrap), name)
			return out.lines(t)
		}
		all := read(kafka.Tail{Topics: []string{cfg.Topics.Events, cfg.Topics.Events}})
		require.Len(t, all, 4, name)
		for at, want := range map[time.Time]int{
			first.Add(-time.Hour): 4, first.AddDate(-1000, 0, 0): 4, first: 4,
			first.Add(time.Millisecond + 100*time.Microsecond): 3, first.Add(3 * time.Millisecond): 1,
			first.Add(time.Hour): 0,
		} {
			require.Len(t, read(kafka.Tail{From: kafka.Start{At: at}}), want, "%s: from %s", name, at)
		}
		followed := read(kafka.Tail{From: kafka.Start{At: all[2].Timestamp}, Follow: true, Limit: 2})
		require.Equal(t, all[2:], followed, name)
	}
}

// gone is an output whose reader has ended.
type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestTailEndsQuietlyWhenItsReaderHasSeenEnough(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	producer, _ := start(t, cfg)
	send(producer, events(cfg.Topics.Events, "phc_test", `{}`)).requireAcknowledged(t)
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	for _, format := range []string{"json", "pretty"} {
		tail := kafka.Tail{Format: format, Follow: true}
		require.NoError(t, tail.Run(invocation(t.Context(), gone{}), cfg, bootstrap))
	}
}

func TestTailWaitsForATopicThatDoesNotExistYet(t *testing.T) {
	t.Parallel()
	cfg := config(cluster(t)...)
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	var out, hints output
	use := invocation(t.Context(), &out)
	use.Err = &hints
	ended := make(chan error, 1)
	go func() {
		ended <- kafka.Tail{Limit: 2, Follow: true, Format: "json", From: kafka.Start{Recent: true}}.
			Run(use, cfg, bootstrap)
	}()
	require.Eventually(t, func() bool { return hints.String() != "" }, patience, time.Millisecond)
	require.Contains(t, hints.String(), "waiting for topics that do not exist yet: "+cfg.Topics.Events+"\n")
	producer, _ := start(t, cfg)
	send(producer, events(cfg.Topics.Events, "phc_test", `{"n":1}`, `{"n":2}`)).requireAcknowledged(t)
	require.NoError(t, <-ended)
	require.Len(t, out.lines(t), 2)
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
		ended <- kafka.Tail{
			Topics: []string{cfg.Topics.Events}, From: kafka.Start{Now: true}, Follow: true, Format: "json",
		}.Run(invocation(ctx, &out), cfg, bootstrap)
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
	topic := cfg.Topics.Events
	require.EqualError(t, kafka.Tail{Topics: []string{"nope"}, Follow: true}.Run(use, cfg, bootstrap),
		"no such topic: nope; the topics of the configuration are "+topic)
	require.EqualError(t, kafka.Tail{Topics: []string{topic}}.Run(use, cfg, bootstrap),
		"the topic does not exist yet: "+topic)
	require.EqualError(t, kafka.Tail{}.Run(use, cfg, bootstrap), "none of the topics exists yet: "+topic)

	cfg.Brokers = nil
	address := freeAddress(t)
	bootstrap, err = kafka.NewBootstrap(cfg, local(address))
	require.NoError(t, err)
	require.EqualError(t, kafka.Tail{}.Run(use, cfg, bootstrap),
		"no broker answers at "+address+": is `capture serve` running?")

	cfg.Brokers = []string{address}
	bootstrap, err = kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	require.ErrorContains(t, kafka.Tail{}.Run(use, cfg, bootstrap), "Kafka at "+address+": ")

	address = fake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "capture", "secret")).ListenAddrs()[0]
	cfg.Brokers, cfg.SASL = []string{address}, kafka.SASL{Mechanism: "PLAIN", Username: "capture", Password: "wrong"}
	bootstrap, err = kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	require.ErrorContains(t, kafka.Tail{}.Run(use, cfg, bootstrap), "the login by PLAIN, see kafka.sasl")
	err = kafka.NewReader(cfg, bootstrap).ReadTopic(t.Context(), topic, nil)
	require.ErrorContains(t, err, "the login by PLAIN, see kafka.sasl")
}
