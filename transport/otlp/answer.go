package otlp

import (
	"net/http"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/route"
)

const typeProtobuf = "application/x-protobuf"

// answers writes answers in the encoding of the request.
type answers struct {
	protobuf bool
	// rejected is the name of the count of what was rejected, in JSON.
	rejected string
}

func (a answers) response(status int, json string, protobuf []byte) route.Response {
	if a.protobuf {
		return route.Response{Status: status, ContentType: typeProtobuf, Body: string(protobuf)}
	}
	return route.Response{Status: status, ContentType: route.TypeJSON, Body: json}
}

// success answers that everything is safe but what was rejected; message says what is wrong with that.
func (a answers) success(rejected int, message string) route.Response {
	if rejected == 0 {
		return a.response(http.StatusOK, "{}", nil)
	}
	var partial []byte
	partial = protowire.AppendTag(partial, 1, protowire.VarintType)
	partial = protowire.AppendVarint(partial, uint64(rejected))
	partial = protowire.AppendTag(partial, 2, protowire.BytesType)
	partial = protowire.AppendString(partial, message)
	return a.response(http.StatusOK,
		`{"partialSuccess":{"`+a.rejected+`":"`+strconv.Itoa(rejected)+`","errorMessage":`+quoted(message)+`}}`,
		protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial))
}

// refusal answers with an error as OTLP has it, a google.rpc.Status.
func (a answers) refusal(err error) route.Response {
	return a.status(route.Status(err), codeOf(err), route.Message(err))
}

func (a answers) status(status, code int, message string) route.Response {
	body := protowire.AppendTag(nil, 1, protowire.VarintType)
	body = protowire.AppendVarint(body, uint64(code))
	body = protowire.AppendTag(body, 2, protowire.BytesType)
	body = protowire.AppendString(body, message)
	response := a.response(status, `{"code":`+strconv.Itoa(code)+`,"message":`+quoted(message)+`}`, body)
	response.Retry = status == http.StatusServiceUnavailable
	return response
}

// quota answers that the project has used up what it may send. It is a 400, as OTLP's clients send again upon a 429.
func (a answers) quota() route.Response {
	const message = "quota exceeded"
	response := a.status(http.StatusBadRequest, codeInvalid, message)
	if !a.protobuf {
		response.Body = `{"error":"` + message + `"}`
	}
	return response
}

// The codes of google.rpc.
const (
	codeInvalid         = 3
	codeDeadline        = 4
	codeInternal        = 13
	codeUnavailable     = 14
	codeUnauthenticated = 16
)

func codeOf(err error) int {
	switch events.CodeOf(err) {
	case events.Invalid, events.TooLarge, events.Unsupported:
		return codeInvalid
	case events.Unauthorized:
		return codeUnauthenticated
	case events.SlowClient:
		return codeDeadline
	case events.Unavailable:
		return codeUnavailable
	default:
		return codeInternal
	}
}

// batch maps the outcomes of a batch.
func (a answers) batch(batch *events.Batch) route.Response {
	quota, rejected := 0, 0
	message := ""
	var failed error
	for i := range batch.Events {
		switch outcome := &batch.Events[i].Outcome; outcome.State {
		case events.StateDropped:
			if outcome.Reason == events.ReasonQuota {
				quota++
			}
		case events.StateRejected:
			if rejected++; message == "" {
				message = outcome.Err.Error()
			}
		case events.StateAccepted:
		default:
			if failed == nil || events.CodeOf(outcome.Err) == events.Internal {
				failed = outcome.Err
			}
		}
	}
	switch {
	case failed != nil && events.CodeOf(failed) == events.Internal:
		return a.refusal(failed)
	case failed != nil:
		return a.refusal(errTransient)
	case quota > 0 && quota == len(batch.Events):
		return a.quota()
	default:
		return a.success(rejected, message)
	}
}

var errTransient = events.Errorf(events.Unavailable, "transient error, please retry")

// quoted is a text as JSON.
func quoted(text string) string {
	size := len(text)*6 + 2
	w := writer{limit: size, left: size}
	w.begin()
	w.string(text)
	value, _ := w.end()
	return string(value)
}
