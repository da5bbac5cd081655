package testkit_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/testkit"
)

// snapshots is the content of a recorded request to /s/.
type snapshots []struct {
	UUID       string `json:"uuid"`
	Properties struct {
		DistinctID string `json:"distinct_id"`
		Session    string `json:"$session_id"`
		Window     string `json:"$window_id"`
		Library    string `json:"$lib"`
		Items      items  `json:"$snapshot_data"`
	} `json:"properties"`
}

// items are the snapshots of an event: an array or, up to posthog-js 1.57, a single snapshot.
type items []json.RawMessage

func (i *items) UnmarshalJSON(text []byte) error {
	if text[0] == '{' {
		*i = items{slices.Clone(text)}
		return nil
	}
	return json.Unmarshal(text, (*[]json.RawMessage)(i))
}

// snapshotItems is the data of a recording's message.
type snapshotItems struct {
	Event      string `json:"event"`
	Properties struct {
		DistinctID string            `json:"distinct_id"`
		Session    string            `json:"$session_id"`
		Window     string            `json:"$window_id"`
		Source     string            `json:"$snapshot_source"`
		Items      []json.RawMessage `json:"$snapshot_items"`
		Library    string            `json:"$lib"`
	} `json:"properties"`
}

// Section 6 of the protocol: every recorded request with a session's recording becomes one message, which holds each
// snapshot byte for byte as the browser sent it.
func TestSection6EveryRecordedRecordingArrivesExactlyOnce(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/sdk/posthog-js-*.jsonl")
	require.NoError(t, err)
	found := 0
	for _, file := range files {
		for n, row := range recordings(t, file) {
			if row.Path != "/s/" {
				continue
			}
			found++
			t.Run(fmt.Sprint(strings.TrimSuffix(filepath.Base(file), ".jsonl"), " ", n), func(t *testing.T) {
				var config kafka.Config
				service := testkit.Start(t, testkit.Populate(&config))
				response := service.Request(row.Method, row.Path+"?"+row.RawQuery, string(row.Body), row.header()...)
				query, err := url.ParseQuery(row.RawQuery)
				require.NoError(t, err)
				status := 200
				if query.Get("beacon") == "1" {
					status = 204
				}
				require.Equal(t, status, response.Status, response.Body)
				var sent, decoded snapshots
				require.NoError(t, json.Unmarshal(exactText(t, row, query), &sent))
				require.NoError(t, json.Unmarshal(row.JSON, &decoded))
				require.Equal(t, len(decoded), len(sent)) //nolint:testifylint // what is compared is long
				first := sent[0].Properties

				messages := service.Messages()
				require.Len(t, messages, 1)
				message := messages[0]
				require.Equal(t, config.Topics.Recordings, message.Topic)
				require.Equal(t, first.Session, string(message.Key))
				require.Equal(t, map[string]string{
					"token": "phc_test", "distinct_id": first.DistinctID, "session_id": first.Session,
					"event": "$snapshot_items",
					"uuid":  message.Envelope.UUID, "now": message.Headers["now"],
					"timestamp": strconv.FormatInt(message.Envelope.Timestamp.UnixMilli(), 10),
				}, message.Headers)
				if sent[0].UUID != "" {
					require.Equal(t, sent[0].UUID, message.Envelope.UUID)
				}
				var got snapshotItems
				require.NoError(t, json.Unmarshal(message.Envelope.Data, &got))
				require.Equal(t, "$snapshot_items", got.Event)
				require.Equal(t, first.DistinctID, got.Properties.DistinctID)
				require.Equal(t, first.Session, got.Properties.Session)
				require.Equal(t, first.Window, got.Properties.Window)
				require.Equal(t, "web", got.Properties.Source)
				if first.Library == "" {
					first.Library = "web" // as posthog-js up to 1.57
				}
				require.Equal(t, first.Library, got.Properties.Library)
				var want []json.RawMessage
				for _, event := range sent {
					want = append(want, event.Properties.Items...)
				}
				require.NotEmpty(t, want)
				require.Equal(t, want, got.Properties.Items)
			})
		}
	}
	require.Equal(t, 5, found)
}

// Section 0.1 of the protocol: a recording that is too large for a message becomes several messages, in order. A
// snapshot that is too large on its own becomes a mark, and the project is warned of it.
func TestSection01ALargeRecordingIsSplit(t *testing.T) {
	service := testkit.Start(t, testkit.Set("kafka.max_message_bytes", "20000"),
		testkit.Set("warnings.enabled", "true"))
	var items []string
	for i := range 60 {
		items = append(items, fmt.Sprintf(`{"type":3,"timestamp":%d,"data":%q}`, 1700000000000+i,
			strings.Repeat("x", 900)))
	}
	items[30] = fmt.Sprintf(`{"type":2,"timestamp":1700000000030,"data":%q}`, strings.Repeat("y", 30_000))
	body := fmt.Sprintf(`[{"event":"$snapshot","uuid":"0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d",`+
		`"properties":{"token":"phc_test","distinct_id":"u",`+
		`"$session_id":"s-1","$snapshot_data":[%s]}}]`, strings.Join(items, ","))
	require.Equal(t, 200, service.Post("/s/", body).Status)

	var warning, recorded []testkit.Message
	service.Eventually("the warning", func() bool {
		warning, recorded = nil, nil
		for _, message := range service.Messages() {
			if message.Envelope.Event == "$$client_ingestion_warning" {
				warning = append(warning, message)
			} else {
				recorded = append(recorded, message)
			}
		}
		return len(warning) > 0
	})
	require.Len(t, warning, 1)
	require.Contains(t, string(warning[0].Envelope.Data),
		`"$$client_ingestion_warning_type":"replay_message_too_large"`)
	require.GreaterOrEqual(t, len(recorded), 3)
	require.Equal(t, "0190a6e2-6c1f-7a3b-8c2d-1e2f3a4b5c6d", recorded[0].Envelope.UUID)
	var got []string
	uuids := map[string]bool{}
	for _, message := range recorded {
		require.Equal(t, "s-1", string(message.Key))
		require.LessOrEqual(t, len(message.Value), 20_000)
		uuids[message.Envelope.UUID] = true
		var part snapshotItems
		require.NoError(t, json.Unmarshal(message.Envelope.Data, &part))
		for _, item := range part.Properties.Items {
			got = append(got, string(item))
		}
	}
	require.Len(t, uuids, len(recorded))
	items[30] = fmt.Sprintf(`{"type":5,"timestamp":1700000000030,"data":{"tag":"snapshot_too_large",`+
		`"payload":{"bytes":%d}}}`, len(items[30]))
	require.True(t, slices.Equal(items, got), "every snapshot once, in order")

	require.Equal(t, 200, service.Post("/s/", body).Status)
	for _, message := range service.Messages() {
		if message.Envelope.Event != "$$client_ingestion_warning" {
			require.True(t, uuids[message.Envelope.UUID], "a retry makes the same uuids")
		}
	}
}
