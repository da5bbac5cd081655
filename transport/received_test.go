package transport

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

// passage is when the head of a request was there, and when its batch was processed.
type passage struct{ received, processed time.Time }

// watchReceived starts a server, and returns a connection to it and the passages of the requests.
func watchReceived(t *testing.T) (*connection, chan passage) {
	f := serve(t, nil)
	seen := make(chan passage, 10)
	f.processor.judge = func(batch *events.Batch) { seen <- passage{batch.Received, now()} }
	return f.dial(t), seen
}

// now is the time by the clock of the wall, as Received is.
func now() time.Time { return time.Now().UTC().Round(0) }

// The client sends the body of such a request when the server has the head.
func TestTheTimeThatABodyTakesIsNotInReceived(t *testing.T) {
	conn, seen := watchReceived(t)
	head, body, _ := strings.Cut(request("POST", "/e/", "Expect: 100-continue\r\n", event), "\r\n\r\n")
	for range 3 { // also on a connection that has served a request
		before := now()
		response, _ := conn.send("POST", head+"\r\n\r\n")
		require.Equal(t, http.StatusContinue, response.StatusCode)
		there := now()
		response, _ = conn.send("POST", body)
		require.Equal(t, http.StatusOK, response.StatusCode)
		received := (<-seen).received
		require.False(t, received.Before(before), "the time is that of this request")
		require.False(t, received.After(there), "the body came later")
		require.Equal(t, time.UTC, received.Location())
	}
}

func TestEveryPipelinedRequestHasATimeOfItsOwn(t *testing.T) {
	conn, seen := watchReceived(t)
	_, err := io.WriteString(conn, strings.Repeat(request("POST", "/e/", "", event), 3))
	require.NoError(t, err)
	var before passage
	for range 3 {
		response, _ := conn.answer("POST")
		require.Equal(t, http.StatusOK, response.StatusCode)
		this := <-seen
		require.False(t, this.received.Before(before.processed), "its head was read after the request before it")
		require.False(t, this.received.After(this.processed))
		before = this
	}
}

func TestNoClientWritesTheTimeOfItsOwnRequest(t *testing.T) {
	for _, name := range []string{":received", ":Received", "received", " :received", "%3Areceived"} {
		conn, seen := watchReceived(t)
		before := now()
		response, body := conn.send("POST", request("POST", "/e/", name+": 1\r\n", event))
		if response.StatusCode == http.StatusBadRequest {
			continue
		}
		require.Equal(t, http.StatusOK, response.StatusCode, body)
		require.False(t, (<-seen).received.Before(before), name)
	}
}
