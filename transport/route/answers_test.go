package route

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

// table renders the table of answers as docs/protocol.md shows it.
func table() string {
	var out strings.Builder
	code := func(word string) string {
		if word == "" {
			return ""
		}
		return "`" + word + "`"
	}
	row := func(cells ...string) { fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | ")) }
	row("code", "status", "a refused request is told", "a failed event is told", "Retry-After", "v1 `error`",
		"google.rpc")
	row("---", "---", "---", "---", "---", "---", "---")
	for _, of := range events.Codes() {
		answer := &byCode[of]
		told := cmp.Or(code(answer.Text), "the error's text")
		if answer.large != "" {
			told += ", of an event behind " + code(answer.large) + " or " + code(answer.largeAI)
		}
		retry := map[[2]bool]string{{true, true}: "yes", {false, true}: "v1",
			{false, false}: "no"}[[2]bool{answer.Retry, answer.RetryV1}]
		failed := code(cmp.Or(answer.failed, answer.Text))
		if answer.failed == "" && answer.Text == "" {
			failed = "as `unavailable`"
		}
		row(code(of.String()), fmt.Sprintf("%d %s", answer.Status, http.StatusText(answer.Status)), told, failed, retry,
			code(answer.Tag), fmt.Sprint(answer.RPC))
	}
	out.WriteByte('\n')
	row("reason", "v1 `details`", "a failed event is told", "Retry-After")
	row("---", "---", "---", "---")
	for _, of := range slices.Sorted(maps.Keys(byReason)) {
		reason := byReason[of]
		details := code(reason.details)
		if reason.detailsAI != "" {
			details += ", of an AI event " + code(reason.detailsAI)
		}
		after := "as its code says"
		if reason.retryAfter > 0 {
			after = reason.retryAfter.String()
		}
		row(code(string(of)), details, cmp.Or(code(reason.failed), "as its code says"), after)
	}
	out.WriteByte('\n')
	row("outcome", "v1 `result`", "v1 `details` without a row above")
	row("---", "---", "---")
	for _, of := range []events.State{events.StateAccepted, events.StateDropped, events.StateRejected,
		events.StateFailed} {
		details := cmp.Or(code(byState[of].details), "its reason")
		if of == events.StateAccepted {
			details = "none"
		}
		row(of.String(), code(byState[of].result), details)
	}
	return out.String()
}

func TestTheDocumentsShowTheTableOfAnswers(t *testing.T) {
	const begin, end = "<!-- the table of answers -->\n", "<!-- end of the table -->\n"
	text, err := os.ReadFile("../../docs/protocol.md")
	require.NoError(t, err)
	_, shown, found := strings.Cut(string(text), begin)
	require.True(t, found)
	shown, _, found = strings.Cut(shown, end)
	require.True(t, found)
	require.Equal(t, table(), shown, "put this in docs/protocol.md:\n%s", table())
}

func TestEveryCodeAndStateHasAnAnswer(t *testing.T) {
	require.Len(t, byCode, len(events.Codes()))
	tags := map[string]bool{}
	for _, code := range events.Codes() {
		answer := ToError(events.Errorf(code, "the text"))
		require.NotEmpty(t, http.StatusText(answer.Status), code)
		require.GreaterOrEqual(t, answer.Status, 400, code)
		require.NotEmpty(t, answer.Text, code)
		require.NotZero(t, answer.RPC, code)
		require.False(t, answer.Retry && !answer.RetryV1, code)
		require.False(t, tags[answer.Tag], "two codes have one word")
		tags[answer.Tag] = true
	}
	require.Equal(t, "internal server error", ToError(errors.New("secret")).Text)
}

// A client whose event has failed is told to send it again, and nothing of the service's insides.
func TestAFailedEventIsToBeSentAgain(t *testing.T) {
	for _, code := range events.Codes() {
		event := &events.Event{}
		event.Fail(events.ReasonStage, events.Errorf(code, "secret"))
		answer := ToFailure(event)
		require.NotContains(t, answer.Text, "secret", code)
		require.NotEmpty(t, answer.Text)
		switch code {
		case events.Internal:
			require.Equal(t, 500, answer.Status)
		case events.RateLimited:
			require.Equal(t, 429, answer.Status)
		default:
			require.Equal(t, 503, answer.Status, code)
			require.True(t, answer.Retry)
		}
	}
	// Browsers drop what is answered 429, and every SDK of v0 sends again what is answered 503.
	event := &events.Event{}
	event.Fail(events.ReasonStage, events.Errorf(events.RateLimited, "secret"))
	require.Equal(t, 503, Failed(event).Status)
	event = &events.Event{}
	event.Fail(events.ReasonStage, events.Errorf(events.Internal, "secret"))
	require.Equal(t, 500, Failed(event).Status)

	event = &events.Event{}
	event.Fail(events.ReasonInFlight, events.Errorf(events.Unavailable, "secret"))
	answer := ToFailure(event)
	require.Equal(t, 503, answer.Status)
	require.Equal(t, time.Second, answer.RetryAfter)
	require.Contains(t, answer.Text, "same event")
}

func TestWhatTheSinkAsksForGoesBeforeTheTable(t *testing.T) {
	response := Response{Status: 503, Retry: true, RetryAfter: time.Second}
	require.Equal(t, time.Second, response.About(&events.Batch{}).RetryAfter)
	require.Equal(t, time.Minute, response.About(&events.Batch{RetryAfter: time.Minute}).RetryAfter)
}

func TestAnEventsResultIsItsStatesAndItsReasonsWord(t *testing.T) {
	cause := events.Errorf(events.Unavailable, "gone")
	for want, end := range map[[2]string]func(*events.Event){
		{"ok", ""}:                         func(e *events.Event) { e.Accept() },
		{"ok", "duplicate"}:                func(e *events.Event) { e.AcceptDuplicate() },
		{"drop", "billing_limit_exceeded"}: func(e *events.Event) { e.Drop(events.ReasonQuota) },
		{"drop", "bot"}:                    func(e *events.Event) { e.Drop("bot") },
		{"drop", "event_too_big"}:          func(e *events.Event) { e.Reject(events.ReasonTooLarge, cause) },
		{"drop",
			"ai_event_too_big"}: func(e *events.Event) {
			e.Lane = events.LaneAI
			e.Reject(events.ReasonTooLarge, cause)
		},
		{"retry", "not_persisted"}: func(e *events.Event) { e.Fail(events.ReasonUnavailable, cause) },
		{"retry", "in_flight"}:     func(e *events.Event) { e.Fail(events.ReasonInFlight, cause) },
	} {
		event := &events.Event{}
		end(event)
		result, details := ToEvent(event)
		require.Equal(t, want, [2]string{result, details})
	}
}
