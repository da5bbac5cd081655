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
	// items are what the path takes, and list is the JSON name of the list that has them.
	items, list string
	// rejected is the JSON name for the number of rejected spans or records.
	rejected string
}

func (a answers) response(status int, json string, protobuf []byte) route.Response {
	if a.protobuf {
		return route.Response{Status: status, ContentType: typeProtobuf, Body: string(protobuf)}
	}
	return route.Response{Status: status, ContentType: route.TypeJSON, Body: json}
}

// success answers that all events but the rejected ones are safe. message says what is wrong with those. Without
// rejected events it is a warning; "" is none.
func (a answers) success(rejected int, message string) route.Response {
	if rejected == 0 && message == "" {
		return a.response(http.StatusOK, "{}", nil)
	}
	var partial []byte
	if rejected > 0 {
		partial = protowire.AppendTag(partial, 1, protowire.VarintType)
		partial = protowire.AppendVarint(partial, uint64(rejected))
	}
	partial = protowire.AppendTag(partial, 2, protowire.BytesType)
	partial = protowire.AppendString(partial, message)
	return a.response(http.StatusOK,
		`{"partialSuccess":{"`+a.rejected+`":"`+strconv.Itoa(rejected)+`","errorMessage":`+quoted(message)+`}}`,
		protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial))
}

// refusal renders the answer to an error.
func (a answers) refusal(err error) route.Response { return a.refused(route.ToError(err)) }

// refused renders an answer in OTLP's form, a google.rpc.Status.
func (a answers) refused(answer route.Answer) route.Response {
	body := protowire.AppendTag(nil, 1, protowire.VarintType)
	body = protowire.AppendVarint(body, uint64(answer.RPC))
	body = protowire.AppendTag(body, 2, protowire.BytesType)
	body = protowire.AppendString(body, answer.Text)
	response := a.response(answer.Status,
		`{"code":`+strconv.Itoa(answer.RPC)+`,"message":`+quoted(answer.Text)+`}`, body)
	response.Retry, response.RetryAfter = answer.Retry, answer.RetryAfter
	return response
}

// overQuota answers that the project's quota is used up. In JSON it uses upstream's words.
func (a answers) overQuota() route.Response {
	response := a.refused(route.OverQuota)
	if !a.protobuf {
		response.Body = `{"error":` + quoted(route.OverQuota.Text) + `}`
	}
	return response
}

// batch renders the answer to a batch that has been processed. note is a warning about the events that are safe, or "".
func (a answers) batch(batch *events.Batch, note string) route.Response {
	sum := batch.Summary()
	switch {
	case sum.Failed > 0:
		return a.refused(route.ToFailure(sum.Failure))
	case sum.Limited > 0 && sum.Limited == len(batch.Events):
		return a.overQuota()
	case sum.Rejected > 0:
		text := route.ToRejection(sum.Rejection).Text
		if note != "" {
			text += "; " + note
		}
		return a.success(sum.Rejected, text)
	default:
		return a.success(0, note)
	}
}

// quoted returns a text as a JSON string.
func quoted(text string) string {
	size := len(text)*6 + 2
	w := writer{limit: size, left: size}
	w.begin()
	w.string(text)
	value, _ := w.end()
	return string(value)
}
