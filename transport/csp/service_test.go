package csp_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
)

const report = `{"csp-report":{"document-uri":"https://shop.example/a"}}`

func TestReportsCanBeLeftOutOfABuildAndOfAnInstallation(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink))
	require.Equal(t, 204, service.Post("/report/?token=k", report).Status)
	require.Equal(t, 405, service.Request("GET", "/report/?token=k", "").Status)
	require.Len(t, sink.Events(), 1)
	require.NoError(t, service.Set("transport.serve=analytics"))
	require.Equal(t, 404, service.Post("/report/?token=k", report).Status)

	without := testkit.Start(t, testkit.Without("csp"), testkit.Override[events.Sink](testkit.NewSink()))
	require.Equal(t, 404, without.Post("/report/?token=k", report).Status)
	require.Equal(t, 200, without.Post("/e/", `{"event":"a","distinct_id":"u","api_key":"k"}`).Status)
}
