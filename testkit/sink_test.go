package testkit_test

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
)

func TestWhatTheSinkKeepsSharesNothingWithTheRequest(t *testing.T) {
	request := []byte("abc")
	text := func() string { return unsafe.String(&request[0], len(request)) }
	event := events.Event{
		Name: text(), DistinctID: text(), ClientIP: text(), SessionID: text(), Heatmap: request,
		Raw: events.Raw{
			Token: request, DistinctID: request, Timestamp: request, Offset: request, Properties: request,
			Set: request, SetOnce: request,
		},
		Recording: &events.Recording{
			WindowID: request, Host: request, Source: text(), Lib: text(),
			Items: []events.Snapshot{{JSON: request, Timestamp: request}},
		},
		Routing: events.Routing{DLQ: text(), Topic: text()},
	}
	sink := testkit.NewSink()
	sink.Write(t.Context(), &events.Batch{Events: []events.Event{event}})
	event.Recording.Items[0] = events.Snapshot{}
	*event.Recording = events.Recording{}
	copy(request, "xyz")

	abc := []byte("abc")
	require.Equal(t, []events.Event{{
		Name: "abc", DistinctID: "abc", ClientIP: "abc", SessionID: "abc", Heatmap: abc,
		Raw: events.Raw{
			Token: abc, DistinctID: abc, Timestamp: abc, Offset: abc, Properties: abc, Set: abc, SetOnce: abc,
		},
		Recording: &events.Recording{
			WindowID: abc, Host: abc, Source: "abc", Lib: "abc", Items: []events.Snapshot{{JSON: abc, Timestamp: abc}},
		},
		Routing: events.Routing{DLQ: "abc", Topic: "abc"},
		Outcome: events.Outcome{State: events.StateAccepted},
	}}, sink.Events())
}
