package testkit_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/testkit"
)

// porter is a gate that knows one project, and refuses one address and one token.
type porter struct {
	mu    sync.Mutex
	asked []string
}

func (p *porter) Phase() events.Phase { return events.PhaseAuth }
func (p *porter) Name() string        { return "porter" }

func (p *porter) Admit(_ context.Context, caller *events.Caller) error {
	p.mu.Lock()
	p.asked = append(p.asked, strings.Clone(caller.Path+" "+caller.Token))
	p.mu.Unlock()
	switch {
	case caller.Header("X-Forwarded-For") != "" && caller.ClientIP == "9.9.9.9":
		return events.Errorf(events.RateLimited, "your address sends too much")
	case caller.Token == "phc_unknown":
		return events.Errorf(events.Unauthorized, "the project is not known")
	case caller.Token == "phc_later":
		return events.Errorf(events.Unavailable, "the projects cannot be looked up: %w", io.ErrUnexpectedEOF)
	case caller.Token != "":
		caller.Project = &events.Project{ID: "project of " + strings.Clone(caller.Token)}
	}
	return nil
}

func (p *porter) questions() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}

// projectOf is a stage that notes the projects of the events that it sees.
type projectOf struct {
	mu  sync.Mutex
	ids []string
}

func (p *projectOf) Phase() events.Phase { return events.PhaseAuth + 1 }
func (p *projectOf) Name() string        { return "projects" }

func (p *projectOf) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if batch.Pending() > 0 {
		p.ids = append(p.ids, batch.Project.ID)
	}
	return nil, nil
}

func gated(t *testing.T) (*testkit.Service, *porter, *projectOf, *testkit.Sink) {
	gate, projects, sink := &porter{}, &projectOf{}, testkit.NewSink()
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.With(module.Module{
		Name: "porter",
		Options: fx.Provide(
			events.AsGate(func() *porter { return gate }),
			events.AsStage(func() *projectOf { return projects }),
		),
	}))
	return service, gate, projects, sink
}

const v1Event = `{"created_at":"2026-11-24T11:59:00Z","batch":[{"event":"a",` +
	`"uuid":"0198c0de-0000-7000-8000-000000000001",` +
	`"distinct_id":"u","timestamp":"2026-11-24T11:58:00Z"}]}`

// v1Headers returns the headers of a request of v1 with this token.
func v1Headers(token string) []string {
	return []string{
		"Authorization", "Bearer " + token, "PostHog-Sdk-Info", "test/1", "PostHog-Attempt", "1", "User-Agent", "test",
		"PostHog-Request-Id", "01a20526-db14-71b9-bce0-3d6c94bebba0",
		"PostHog-Request-Timestamp", time.Now().UTC().Format(time.RFC3339), "Content-Type", "application/json",
	}
}

// If the head has the token, the gate is asked once, with the token. Else it is asked twice: without the token, and
// with the token of the body.
func TestAGateIsAskedBeforeTheBodyAndAgainWithItsToken(t *testing.T) {
	t.Parallel()
	service, gate, projects, sink := gated(t)
	require.Equal(t, 200, service.Post("/e/", `{"api_key":"phc_a","event":"a","distinct_id":"u"}`).Status)
	require.Equal(t, []string{"/e/ ", "/e/ phc_a"}, gate.questions())
	require.Equal(t, 200, service.Post("/i/v1/analytics/events", v1Event, v1Headers("phc_b")...).Status)
	require.Equal(t, []string{"/i/v1/analytics/events phc_b"}, gate.questions())
	logs := `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}`
	require.Equal(t, 200, service.Post("/i/v1/logs?token=phc_c", logs, "Content-Type", "application/json").Status)
	require.Equal(t, []string{"/i/v1/logs phc_c"}, gate.questions())
	var form bytes.Buffer
	writer := multipart.NewWriter(&form)
	part, err := writer.CreateFormField("event")
	require.NoError(t, err)
	_, err = io.WriteString(part, `{"event":"$ai_span","uuid":"0198c0de-0000-7000-8000-000000000001",`+
		`"distinct_id":"u","properties":{"$ai_model":"m"}}`)
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	answer := service.Post("/i/v0/ai", form.String(), "Content-Type", writer.FormDataContentType(),
		"Authorization", "Bearer phc_d")
	require.Equal(t, 200, answer.Status, answer.Body)
	require.Equal(t, []string{"/i/v0/ai phc_d"}, gate.questions())
	require.Equal(t, []string{"project of phc_a", "project of phc_b", "project of phc_c", "project of phc_d"},
		projects.ids)
	require.Len(t, sink.Events(), 4)
}

func TestWhomAGateRefusesIsToldInTheWordsOfTheProtocol(t *testing.T) {
	t.Parallel()
	service, _, _, sink := gated(t)
	event := func(token string) string { return fmt.Sprintf(`{"api_key":%q,"event":"a","distinct_id":"u"}`, token) }

	answer := service.Post("/e/", event("phc_unknown"))
	require.Equal(t, 401, answer.Status)
	require.Equal(t, "the project is not known", answer.Body)
	answer = service.Post("/e/", event("phc_later"))
	require.Equal(t, 503, answer.Status)
	require.NotEmpty(t, answer.Header.Get("Retry-After"))
	answer = service.Post("/e/", event("phc_a"), "X-Forwarded-For", "9.9.9.9")
	require.Equal(t, 429, answer.Status)
	require.NotEmpty(t, answer.Header.Get("Retry-After"))
	answer = service.Post("/i/v1/analytics/events", v1Event, v1Headers("phc_unknown")...)
	require.Equal(t, 401, answer.Status)
	require.Contains(t, answer.Body, `"error":"invalid_api_token"`)
	answer = service.Post("/i/v1/logs?token=phc_unknown", "{}", "Content-Type", "application/json")
	require.Equal(t, 401, answer.Status)
	require.Contains(t, answer.Body, `"code":16`)
	require.Empty(t, sink.Events())

	// Events that were read are counted by how they ended.
	metrics := service.Admin("/metrics").Body
	require.Contains(t, metrics, `capture_events_rejected_total{reason="not_admitted"} 1`)
	require.Contains(t, metrics, `capture_events_failed_total{reason="not_admitted"} 1`)
	require.Contains(t, metrics, "capture_events_received_total 2\n")
}

// A request that the gate refuses by its head is answered although most of its body never comes. (fasthttp reads up to
// 8 KiB of a body along with the head.)
func TestAGateRefusesWithoutReadingTheBody(t *testing.T) {
	t.Parallel()
	service, _, _, _ := gated(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(service.URL, "http://"))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, "POST /e/ HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 9.9.9.9\r\n"+
		"Content-Length: 1000000\r\n\r\n"+
		strings.Repeat("x", 9<<10))
	require.NoError(t, err)
	begin := time.Now()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.Less(t, time.Since(begin), time.Minute, "the body's own timeout")
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, 429, answer.StatusCode)
	require.Equal(t, "your address sends too much", string(body))
	require.True(t, answer.Close)
}
