package ai_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
)

const (
	contentType = "multipart/form-data; boundary=xyz"
	id          = "01a2052b-b6c7-72cd-a4a0-f798a3c743bc"
)

var form = strings.Join([]string{
	`--xyz`, `Content-Disposition: form-data; name="event"`, `Content-Type: application/json`, ``,
	`{"event":"$ai_generation","uuid":"` + id + `","distinct_id":"ann","timestamp":"2026-11-24T11:00:00Z"}`,
	`--xyz`, `Content-Disposition: form-data; name="event.properties"`, `Content-Type: application/json`, ``,
	`{"$ai_model":"m","$ai_input":[{"role":"user","content":"hi"}],"$ai_gateway_verified":true}`,
	`--xyz--`, ``,
}, "\r\n")

func TestAnEventReachesTheTopicOfAIEvents(t *testing.T) {
	service := testkit.Start(t)
	response := service.Post("/i/v0/ai/", form, "Content-Type", contentType, "Authorization", "Bearer phc_test")
	require.Equal(t, 200, response.Status, response.Body)
	require.JSONEq(t,
		`{"accepted_parts":[{"name":"event","length":127,"content-type":"application/json"},`+
			`{"name":"event.properties","length":90,"content-type":"application/json"}]}`, response.Body)

	messages := service.Messages()
	require.Len(t, messages, 1)
	require.Equal(t, "ai_events", messages[0].Topic)
	require.Equal(t, "phc_test:ann", string(messages[0].Key))
	require.Equal(t, id, messages[0].Envelope.UUID)
	require.JSONEq(t, `{"distinct_id":"ann","uuid":"`+id+
		`","event":"$ai_generation","timestamp":"2026-11-24T11:00:00Z",`+
		`"properties":{"$ai_model":"m","$ai_input":[{"role":"user","content":"hi"}]}}`,
		string(messages[0].Envelope.Data))
	require.True(t, json.Valid(messages[0].Value))
}

func TestABuildWithoutTheModuleServesTheRest(t *testing.T) {
	sink := testkit.NewSink()
	service := testkit.Start(t, testkit.Without("ai"), testkit.Override[events.Sink](sink))
	require.Equal(t, 404,
		service.Post("/i/v0/ai", form, "Content-Type", contentType, "Authorization", "Bearer k").Status)
	require.Equal(t, 200, service.Post("/e/", `{"event":"a","distinct_id":"u","api_key":"k"}`).Status)
	require.Len(t, sink.Events(), 1)
}

func TestTheGroupOfThePathDecidesWhetherItIsServed(t *testing.T) {
	service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()),
		testkit.Set("transport.serve", "analytics"))
	require.Equal(t, 404,
		service.Post("/i/v0/ai", form, "Content-Type", contentType, "Authorization", "Bearer k").Status)
}
