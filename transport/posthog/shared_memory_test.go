package posthog_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	v1 "github.com/opencapture/capture/transport/posthog/v1"
	"github.com/opencapture/capture/transport/route"
)

// strangers is a sink that looks for bytes of another request than the event's own, whose mark is the request id. It
// looks twice, and lets other requests go on in between.
type strangers struct {
	mu    sync.Mutex
	found []string
	kept  int
}

func (s *strangers) Write(_ context.Context, batch *events.Batch) {
	for range 2 {
		for i := range batch.Events {
			event := &batch.Events[i]
			if !event.Pending() {
				continue
			}
			for _, text := range textsOf(batch, event) {
				if strings.Count(text, "mark") == 0 ||
					strings.Count(text, "mark") != strings.Count(text, batch.RequestID) {
					s.mu.Lock()
					s.found = append(s.found, batch.RequestID+" has "+text)
					s.mu.Unlock()
				}
			}
		}
		runtime.Gosched()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range batch.Events {
		if batch.Events[i].Pending() {
			s.kept++
		}
		batch.Events[i].Accept()
	}
}

// textsOf returns all texts of an event.
func textsOf(batch *events.Batch, event *events.Event) []string {
	texts := []string{batch.Token, event.DistinctID}
	if event.Recording == nil {
		texts = append(texts, event.Name, string(event.Raw.Properties))
	} else {
		texts = append(texts, event.SessionID, string(event.Recording.WindowID), string(event.Recording.Host),
			event.Recording.Lib)
		for _, item := range event.Recording.Items {
			texts = append(texts, string(item.JSON), string(item.Timestamp))
		}
	}
	for _, raw := range [][]byte{event.Heatmap, event.Raw.Set, event.Raw.DistinctID} {
		if raw != nil {
			texts = append(texts, string(raw))
		}
	}
	return texts
}

// Sessions, their arenas and the decoder's buffers are used again and again. The bytes of one request must never show
// up in another.
func TestNoRequestSeesTheBytesOfAnother(t *testing.T) {
	const workers, requests = 8, 40
	received := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	sink, budget, scope := &strangers{}, memory.NewBudget(1<<30), tally.NoopScope
	pipeline, err := events.NewPipeline(zap.NewNop(), scope)
	require.NoError(t, err)
	decoder, processor := decode.New(route.Fixed(64<<20), budget),
		events.NewProcessor(pipeline, sink, events.NewLedger(), zap.NewNop(), scope)
	live := configs.Fixed(posthog.DefaultConfig())
	h, err := posthog.NewHandler(live, decoder, budget, processor, scope)
	require.NoError(t, err)
	second, err := v1.NewHandler(live, decoder, budget, processor, scope)
	require.NoError(t, err)

	// Every text holds the mark M. Some texts are escaped, so that they are not the request's own bytes, and some are
	// mended.
	event := `{"event":"M-1","distinct_id":"\u004d1-M","$set":{"M":"M"},"properties":{"a":"M%s","n":NaN}}`
	heatmap := `{"event":"M-2","distinct_id":"M","properties":{"$heatmap_data":{"M":"M%s"},"M":1}}`
	gateway := `{"event":"$ai_M","distinct_id":"M","properties":{"$ai_gateway":"%s","M":"M"}}`
	replay := `{"properties":{"distinct_id":"M","$session_id":"M-%d","$window_id":"w\u004d-M","$lib":"M",` +
		`"$snapshot_host":"M","$snapshot_data":[{"timestamp":"M","a":"M%s"},["timestamp M"],"M"]}}`
	snapshots := strings.NewReplacer(`["timestamp M"],"M"`, `{"timestamp":"M"}`)
	strict := `{"event":"M","uuid":"0198c0de-0000-7000-8000-%012d","distinct_id":"M",` +
		`"timestamp":"2026-11-24T11:58:00Z","session_id":"M","properties":{"$ai_gateway":"%s","M":"M"}}`
	var working sync.WaitGroup
	for worker := range workers {
		working.Go(func() {
			for n := range requests {
				mark := fmt.Sprintf("mark%02dx%03dx", worker, n)
				size, filler := 1+n*7%23, strings.Repeat("M", n*31%500)
				var sent []string
				for i := range size {
					switch n % 4 {
					case 0:
						sent = append(sent, fmt.Sprintf(event, filler), fmt.Sprintf(heatmap, filler))
					case 1:
						sent = append(sent, fmt.Sprintf(gateway, filler), fmt.Sprintf(heatmap, filler))
					case 2:
						sent = append(sent, snapshots.Replace(fmt.Sprintf(replay, i/2, filler)))
					default:
						sent = append(sent, fmt.Sprintf(strict, i, filler))
					}
				}
				handle, head := h.Capture, `{"api_key":"M","batch":[`
				switch n % 4 {
				case 2:
					handle = h.Record
				case 3:
					handle, head = second.Capture, `{"created_at":"2026-11-24T11:58:00Z","batch":[`
				}
				body := strings.ReplaceAll(head+strings.Join(sent, ",")+"]}", "M", mark)
				if n%3 == 0 {
					body = gzipped(body)
				}
				request := &route.Request{
					Path: "/e/", ContentType: "application/json", Body: []byte(body), ClientIP: "192.0.2.1",
					RequestID: mark, Received: received,
					Header: route.Headers{
						"Authorization": "Bearer " + mark, "PostHog-Sdk-Info": "test/1", "PostHog-Attempt": "1",
						"User-Agent":                "test",
						"PostHog-Request-Id":        "01a20526-db14-71b9-bce0-3d6c94bebba0",
						"PostHog-Request-Timestamp": received.Format(time.RFC3339),
					},
				}
				if response := handle(context.Background(), request); response.Status != 200 {
					sink.mu.Lock()
					sink.found = append(sink.found, response.Body)
					sink.mu.Unlock()
				}
				// As in the server, the body's buffer holds another request as soon as this one is answered.
				clear(request.Body)
			}
		})
	}
	working.Wait()
	require.Empty(t, sink.found)
	require.Greater(t, sink.kept, workers*requests)
	require.Zero(t, budget.InUse())
}

func gzipped(text string) string {
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	_, _ = writer.Write([]byte(text))
	_ = writer.Close()
	return out.String()
}
