package main

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencapture/capture/transport/route"
)

// attack is a kind of request that looks for work which grows faster than the request.
type attack struct {
	name string
	// request returns a request with a body of about size bytes.
	request func(size int) *route.Request
	status  int
}

// attacks are the kinds of requests. Those that repeat a large value share the bytes out evenly between the value and
// what repeats it, because their product is largest then.
var attacks = concat(
	ofJSON("v0", batchAround, http.StatusOK),
	ofJSON("v1", eventsAround, http.StatusOK),
	ofJSON("AI", partsAround, http.StatusOK),
	ofV0(), ofRecordings(), ofV1(), ofAI(), ofReports(), ofEncodings(), ofOTLP(),
)

func concat(lists ...[]attack) (all []attack) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// fill repeats a text, with commas between, until it has about size bytes. A verb in the text stands for the
// repetition's number.
func fill(size int, format string) string {
	var text strings.Builder
	for i := 0; text.Len() < size; i++ {
		if i > 0 {
			text.WriteByte(',')
		}
		if strings.Contains(format, "%") {
			fmt.Fprintf(&text, format, i)
		} else {
			text.WriteString(format)
		}
	}
	return text.String()
}

func repeat(size int, text string) string { return strings.Repeat(text, size/len(text)+1) }

// body returns the request of a path.
func body(path, text string) *route.Request {
	return &route.Request{
		Method: http.MethodPost, Path: path, ContentType: "application/json", Body: []byte(text),
		Header: route.Headers{
			"Authorization": "Bearer phc_test", "PostHog-Sdk-Info": "posthog-node/5.70.0", "PostHog-Attempt": "1",
			"PostHog-Request-Id":        "01a20526-db14-71b9-bce0-3d6c94bebba0",
			"PostHog-Request-Timestamp": "2026-11-24T12:00:00Z", "User-Agent": "test",
		},
	}
}

const event = `"event":"$ai_generation","distinct_id":"u","uuid":"0198c0de-0000-7000-8000-000000000001",` +
	`"timestamp":"2026-11-24T12:00:00Z"`

// batchAround returns a batch of v0 with one event, which has the members as its properties.
func batchAround(members string) *route.Request {
	return body("/batch", `{"api_key":"phc_test","batch":[{`+event+`,"properties":{`+members+`}}]}`)
}

// eventsAround is batchAround for v1.
func eventsAround(members string) *route.Request {
	return body("/i/v1/analytics/events",
		`{"created_at":"2026-11-24T12:00:00Z","batch":[{`+event+`,"properties":{`+members+`}}]}`)
}

// partsAround is batchAround for the path of AI events.
func partsAround(members string) *route.Request {
	r := body("/i/v0/ai", "--b\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\n{"+event+"}"+
		"\r\n--b\r\nContent-Disposition: form-data; name=\"event.properties\"\r\n\r\n{\"$ai_model\":\"m\","+members+"}"+
		"\r\n--b--\r\n")
	r.ContentType = "multipart/form-data; boundary=b"
	return r
}

// ofJSON are attacks on scanners of JSON, within the properties of an event.
func ofJSON(protocol string, around func(members string) *route.Request, status int) []attack {
	with := func(name string, status int, members func(size int) string) attack {
		return attack{protocol + ": " + name, func(size int) *route.Request { return around(members(size)) }, status}
	}
	const deepest = 100
	return []attack{
		with("values that nest deeply", status, func(size int) string {
			return `"a":[` + fill(size, strings.Repeat("[", deepest)+strings.Repeat("]", deepest)) + `]`
		}),
		with("objects that nest deeply", status, func(size int) string {
			return `"a":[` + fill(size, strings.Repeat(`{"a":`, deepest)+"1"+strings.Repeat("}", deepest)) + `]`
		}),
		with("a value that nests too deeply", http.StatusBadRequest, func(size int) string {
			return `"a":` + repeat(size, "[")
		}),
		with("many keys", status, func(size int) string { return fill(size, `"k%d":1`) }),
		with("one key many times", status, func(size int) string { return fill(size, `"k":1`) }),
		with("known keys many times", status, func(size int) string {
			return fill(size, `"$current_url":"u","$session_id":"s","distinct_id":"u","token":"t"`)
		}),
		with("keys of the AI gateway", status, func(size int) string { return fill(size, `"$ai_gateway_%d":1`) }),
		with("keys with escapes", status, func(size int) string { return fill(size, `"\u0024ai_gateway\n%d":1`) }),
		with("one long key with escapes", status, func(size int) string { return `"` + repeat(size, `\n`) + `":1` }),
		with("a string of escapes", status, func(size int) string { return `"a":"` + repeat(size, `\"`) + `"` }),
		with("a string of surrogates", status, func(size int) string {
			return `"a":"` + repeat(size, `\ud83d\ude00`) + `"`
		}),
		with("lone surrogates", status, func(size int) string { return `"a":"` + repeat(size, `\ud83d`) + `"` }),
		with("numbers that are none", status, func(size int) string { return `"a":[` + fill(size, `NaN`) + `]` }),
		with("a fault behind numbers that are none", http.StatusBadRequest, func(size int) string {
			return `"a":[` + fill(size, `NaN`) + `}`
		}),
		with("a number of many digits", status, func(size int) string { return `"a":` + repeat(size, "1") }),
		with("white space", status, func(size int) string { return `"a":` + repeat(size, " \n") + `1` }),
		with("a string without an end", http.StatusBadRequest, func(size int) string {
			return `"a":"` + repeat(size, "x")
		}),
		with("JSON in a string in a string", status, func(size int) string {
			text := `{"a":"b"}`
			for len(text) < size/2 {
				text = `{"a":` + strconv.Quote(text) + `}`
			}
			return `"a":` + strconv.Quote(text)
		}),
	}
}

func ofV0() []attack {
	batch := func(around, one string) func(int) *route.Request {
		return func(size int) *route.Request {
			shared := strings.ReplaceAll(around, "%LARGE%", repeat(size/2, "x"))
			return body("/batch", `{"api_key":"phc_test",`+shared+`"batch":[`+fill(size/2, one)+`]}`)
		}
	}
	const one = `{"event":"a","distinct_id":"u"}`
	return []attack{
		{"v0: many events", batch("", one), http.StatusOK},
		{"v0: many events in large common properties", batch(`"properties":{"a":"%LARGE%"},`, one), http.StatusOK},
		{"v0: many events in a large common $set", batch(`"$set":{"a":"%LARGE%"},"$set_once":{"a":"%LARGE%"},`, one),
			http.StatusOK},
		{"v0: many events of a common user with a long name", batch(`"distinct_id":"%LARGE%","uuid":"%LARGE%",`, one),
			http.StatusOK},
		{"v0: many events with a long sent_at", batch(`"sent_at":"%LARGE%",`, one), http.StatusOK},
		{"v0: many events with their own tokens",
			batch("", `{"event":"a","distinct_id":"u","properties":{"token":"phc_test"}}`), http.StatusOK},
		{"v0: many batches in one", batch("", one+`],"batch":[`+one), http.StatusOK},
		{"v0: many heatmaps", batch("", `{"event":"a","distinct_id":"u","properties":{"$heatmap_data":{"u":[{"x":1}]},`+
			`"$current_url":"u","$prev_pageview_pathname":"p"}}`), http.StatusOK},
		{"v0: one large heatmap", func(size int) *route.Request {
			return batchAround(`"$heatmap_data":{"u":[` + fill(size, `{"x":%d}`) + `]}`)
		}, http.StatusOK},
		{"v0: a heatmap many times", func(size int) *route.Request {
			return batchAround(fill(size, `"$heatmap_data":{"u":[]}`))
		}, http.StatusOK},
		{"v0: a long distinct_id of escapes", func(size int) *route.Request {
			return body("/batch",
				`{"api_key":"phc_test","batch":[{"event":"a","distinct_id":"`+repeat(size, `\u00e9`)+`"}]}`)
		}, http.StatusOK},
		{"v0: a distinct_id that is a large object", func(size int) *route.Request {
			return body("/batch",
				`{"api_key":"phc_test","batch":[{"event":"a","distinct_id":{`+fill(size, `"k%d":1`)+`}}]}`)
		}, http.StatusOK},
		{"v0: many elements that are no events", func(size int) *route.Request {
			return body("/batch", `{"api_key":"phc_test","batch":[`+fill(size, `12345`)+`]}`)
		}, http.StatusBadRequest},
		{"v0: many long times that cannot be read",
			batch("", `{"event":"a","distinct_id":"u","timestamp":"`+strings.Repeat("2026-", 200)+`"}`), http.StatusOK},
	}
}

func ofRecordings() []attack {
	const recorded = `{"event":"$snapshot","api_key":"phc_test","distinct_id":"u","properties":{`
	record := func(session, one string) func(int) *route.Request {
		return func(size int) *route.Request {
			shared := strings.ReplaceAll(session, "%LARGE%", repeat(size/2, "x"))
			first := recorded + `"$session_id":"s",` + shared + `"$snapshot_data":[{"timestamp":1}]}}`
			return body("/s", `[`+first+`,`+fill(size/2, one)+`]`)
		}
	}
	const more = recorded + `"$snapshot_data":[{"timestamp":1}]}}`
	return []attack{
		{"recordings: many events", record("", more), http.StatusOK},
		{"recordings: many events of a window with a long name", record(`"$window_id":"%LARGE%",`, more),
			http.StatusOK},
		{"recordings: many events of a long library", record(`"$lib":"%LARGE%",`, more), http.StatusOK},
		{"recordings: many events of a long host", record(`"$snapshot_host":"%LARGE%",`, more), http.StatusOK},
		{"recordings: many sessions", record("", recorded+`"$session_id":"s%d","$snapshot_data":[{"timestamp":1}]}}`),
			http.StatusOK},
		{"recordings: many windows", record("", recorded+`"$session_id":"s","$window_id":"w%d",`+
			`"$snapshot_data":[{"timestamp":1}]}}`), http.StatusOK},
		{"recordings: two windows in turn with long names", func(size int) *route.Request {
			window := func(letter string) string {
				return recorded + `"$session_id":"` + letter + `","$window_id":"` + repeat(size/4, letter) +
					`","$snapshot_data":[{"timestamp":1}]}},` +
					fill(size/4, more)
			}
			return body("/s", `[`+window("a")+`,`+window("b")+`]`)
		}, http.StatusOK},
		{"recordings: many snapshots", func(size int) *route.Request {
			return body("/s", `[`+recorded+`"$session_id":"s",`+
				`"$snapshot_data":[`+fill(size, `{"a":1}`)+`]}}]`)
		}, http.StatusOK},
		{"recordings: the snapshots many times", func(size int) *route.Request {
			return body("/s", `[`+recorded+`"$session_id":"s",`+
				fill(size, `"$snapshot_data":[{}]`)+`}}]`)
		}, http.StatusOK},
		{"recordings: one large snapshot", func(size int) *route.Request {
			return body("/s", `[`+recorded+`"$session_id":"s",`+
				`"$snapshot_data":[{"data":"`+repeat(size, `\"`)+`"}]}}]`)
		}, http.StatusOK},
	}
}

func ofV1() []attack {
	batch := func(around, one string) func(int) *route.Request {
		return func(size int) *route.Request {
			shared := strings.ReplaceAll(around, "%LARGE%", repeat(size/2, "x"))
			return body("/i/v1/analytics/events", `{"created_at":"2026-11-24T12:00:00Z",`+shared+`"batch":[`+
				fill(size/2, one)+`]}`)
		}
	}
	const head = `{"event":"a","distinct_id":"u","timestamp":"2026-11-24T12:00:00Z",` +
		`"uuid":"0198c0de-0000-7000-8000-%012d",`
	return []attack{
		{"v1: many events", batch("", head+`"properties":{}}`), http.StatusOK},
		{"v1: many events with options", batch("", head+`"session_id":"s","window_id":"w","options":{`+
			`"cookieless_mode":true,"disable_skew_correction":true,"process_person_profile":true},`+
			`"properties":{"a":1}}`),
			http.StatusOK},
		{"v1: many events in a large envelope", batch(`"other":"%LARGE%",`, head+`"properties":{}}`), http.StatusOK},
		{"v1: many events with one uuid", batch("",
			strings.Replace(head, "%012d", "000000000001", 1)+`"properties":{}}`), http.StatusBadRequest},
	}
}

func ofAI() []attack {
	parts := func(text string) *route.Request {
		r := body("/i/v0/ai", text)
		r.ContentType = "multipart/form-data; boundary=" + strings.Repeat("b", 60)
		return r
	}
	const boundary = "--bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	return []attack{
		{"AI: many parts", func(size int) *route.Request {
			return parts(repeat(size, boundary+"\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\n{}\r\n"))
		}, http.StatusBadRequest},
		{"AI: what is almost a boundary", func(size int) *route.Request {
			return parts(boundary + "\r\n" + repeat(size, "\r\n"+boundary[:len(boundary)-1]))
		}, http.StatusBadRequest},
		{"AI: no boundary", func(size int) *route.Request {
			return parts(repeat(size, "\r\n-"))
		}, http.StatusBadRequest},
		{"AI: a long header of a part", func(size int) *route.Request {
			return parts(boundary + "\r\n" + repeat(size, "A: b\r\n") + "\r\n\r\n" + boundary + "--")
		}, http.StatusBadRequest},
	}
}

func ofReports() []attack {
	report := func(name string, status int, build func(size int) string) attack {
		return attack{"reports: " + name, func(size int) *route.Request {
			r := body("/report", build(size))
			r.RawQuery = "token=phc_test&distinct_id=" + strings.Repeat("x", 5000) + "&v=" + strings.Repeat("x", 5000)
			return r
		}, status}
	}
	const violation = `{"type":"csp-violation","url":"u","body":{"documentURL":"u"%s}}`
	return []attack{
		report("many violations", http.StatusNoContent, func(size int) string {
			return "[" + fill(size, fmt.Sprintf(violation, `,"sample":"`+strings.Repeat("x", 400)+`"`)) + "]"
		}),
		report("others", http.StatusNoContent, func(size int) string { return "[" + fill(size, `{"type":"a"}`) + "]" }),
		report("none", http.StatusBadRequest, func(size int) string { return "[" + fill(size, "1") + "]" }),
		report("a member many times", http.StatusNoContent, func(size int) string {
			return fmt.Sprintf(violation, ","+fill(size, `"documentURL":"u"`))
		}),
		report("many bodies", http.StatusNoContent, func(size int) string {
			return `{"type":"csp-violation",` + fill(size, `"body":{"documentURL":"u"}`) + `}`
		}),
		report("a long policy", http.StatusNoContent, func(size int) string {
			return fmt.Sprintf(violation, `,"originalPolicy":"`+repeat(size, `\"; script-src\n`)+`"`)
		}),
	}
}

func ofEncodings() []attack {
	const batch = `{"api_key":"phc_test","batch":[%s]}`
	text := func(size int) string { return fmt.Sprintf(batch, fill(size, `{"event":"a","distinct_id":"u%d"}`)) }
	of := func(name, encoding string, status int, build func(size int) string) attack {
		return attack{name, func(size int) *route.Request {
			r := body("/batch", build(size))
			r.ContentEncoding = encoding
			return r
		}, status}
	}
	form := func(name string, status int, build func(size int) string) attack {
		return attack{name, func(size int) *route.Request {
			r := body("/e", build(size))
			r.ContentType = "application/x-www-form-urlencoded"
			return r
		}, status}
	}
	return []attack{
		of("gzip", "gzip", http.StatusOK, func(size int) string { return packGzip(text(size)) }),
		of("gzip: many members", "gzip", http.StatusOK, func(size int) string {
			return packGzip(text(1000)) + repeat(size, packGzip(" "))
		}),
		of("gzip: zeros", "gzip", http.StatusBadRequest, func(size int) string {
			return packGzip(repeat(100*size, "\x00"))
		}),
		of("gzip: cut short", "gzip", http.StatusBadRequest, func(size int) string {
			packed := packGzip(text(10 * size))
			return packed[:len(packed)-1]
		}),
		of("deflate", "deflate", http.StatusOK, func(size int) string {
			var out bytes.Buffer
			w, _ := flate.NewWriter(&out, flate.BestSpeed) // the level exists
			_, _ = w.Write([]byte(text(size)))
			_ = w.Close()
			return out.String()
		}),
		of("brotli", "br", http.StatusOK, func(size int) string {
			var out bytes.Buffer
			w := brotli.NewWriterLevel(&out, 1)
			_, _ = w.Write([]byte(text(size)))
			_ = w.Close()
			return out.String()
		}),
		of("zstd", "zstd", http.StatusOK, func(size int) string { return packZstd(text(size)) }),
		of("zstd: many frames", "zstd", http.StatusOK, func(size int) string {
			return packZstd(text(10)) + repeat(size, packZstd(repeat(20, " ")))
		}),
		of("base64", "", http.StatusOK, func(size int) string {
			return base64.StdEncoding.EncodeToString([]byte(text(size)))
		}),
		of("base64 of base64", "", http.StatusOK, func(size int) string {
			return base64.StdEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString([]byte(text(size)))))
		}),
		of("base64 with a fault at its end", "", http.StatusBadRequest, func(size int) string {
			return base64.StdEncoding.EncodeToString([]byte(text(size))) + "!"
		}),
		of("lz64 of literals", "lz64", http.StatusOK, func(size int) string { return packLZ64(text(size)) }),
		of("lz64 that grows without end", "lz64", http.StatusBadRequest, func(size int) string {
			return packLZ64("a") + repeat(size, "/")
		}),
		of("gzip of gzip of gzip", "gzip", http.StatusOK, func(size int) string {
			return packGzip(packGzip(packGzip(text(size))))
		}),
		of("gzip written as text", "gzip", http.StatusOK, func(size int) string {
			return asText(packGzip(text(size)))
		}),
		of("gzip written as text, and broken", "gzip", http.StatusBadRequest, func(size int) string {
			return strings.ReplaceAll(asText(packGzip(text(size))), "\u00c3\u00a9", "\ufffd") + "\ufffd"
		}),
		of("JSON in a string in a string", "", http.StatusOK, func(size int) string {
			return strconv.Quote(strconv.Quote(text(size)))
		}),
		of("a JSON string that is no JSON", "", http.StatusBadRequest, func(size int) string {
			return strconv.Quote(repeat(size, `"`))
		}),
		of("a batch that is a JSON string", "", http.StatusOK, func(size int) string {
			return `{"api_key":"phc_test","batch":` +
				strconv.Quote("["+fill(size, `{"event":"a","distinct_id":"u%d"}`)+"]") + `}`
		}),
		of("many batches that are JSON strings", "", http.StatusOK, func(size int) string {
			return `{"api_key":"phc_test",` + fill(size, `"batch":"[{\"event\":\"a\",\"distinct_id\":\"u\"}]"`) + `}`
		}),
		{"a charset", func(size int) *route.Request {
			r := body("/batch", `{"api_key":"phc_test","batch":[{"event":"a","distinct_id":"u","properties":{"a":"`+
				repeat(size, "\xe4\xf6")+`"}}]}`)
			r.ContentType = "application/json; charset=windows-1252"
			return r
		}, http.StatusOK},
		{"UTF-16", func(size int) *route.Request {
			var wide strings.Builder
			for _, c := range []byte(text(size)) {
				wide.WriteString(string([]byte{c, 0}))
			}
			return body("/batch", "\xff\xfe"+wide.String())
		}, http.StatusOK},
		{"a multipart form", func(size int) *route.Request {
			r := body("/e", "--b\r\nContent-Disposition: form-data; name=\"data\"\r\n\r\n"+text(size)+"\r\n--b--\r\n")
			r.ContentType = "multipart/form-data; boundary=b"
			return r
		}, http.StatusOK},
		{"a multipart form of many parts", func(size int) *route.Request {
			r := body("/e", repeat(size, "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n")+"--b--\r\n")
			r.ContentType = "multipart/form-data; boundary=b"
			return r
		}, http.StatusBadRequest},
		form("form: an escaped batch", http.StatusOK, func(size int) string {
			return "data=" + url.QueryEscape(text(size))
		}),
		form("form: every byte escaped", http.StatusOK, func(size int) string {
			return "data=" + percent(text(size))
		}),
		form("form: many fields", http.StatusOK, func(size int) string {
			return "data=" + url.QueryEscape(text(1000)) + repeat(size, "&a=b")
		}),
		form("form: only separators", http.StatusBadRequest, func(size int) string {
			return "_=1" + repeat(size, "&")
		}),
		form("form: pluses", http.StatusOK, func(size int) string {
			return "data=" + url.QueryEscape(text(1000)) + repeat(size, "+")
		}),
	}
}

func percent(text string) string {
	var out strings.Builder
	for _, c := range []byte(text) {
		fmt.Fprintf(&out, "%%%02X", c)
	}
	return out.String()
}

// asText returns bytes as a program writes them that takes them for characters of Latin-1.
func asText(bytes string) string {
	var text strings.Builder
	for _, c := range []byte(bytes) {
		text.WriteRune(rune(c))
	}
	return text.String()
}

func packGzip(text string) string {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed) // the level exists
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return out.String()
}

func packZstd(text string) string {
	encoder, _ := zstd.NewWriter(nil) // without options nothing can be wrong
	return string(encoder.EncodeAll([]byte(text), nil))
}

// packLZ64 writes every character as a literal, which makes the longest dictionary.
func packLZ64(text string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	var out []byte
	value, n := 0, 0
	write := func(code, width int) {
		for range width {
			value, n = value<<1|code&1, n+1
			code >>= 1
			if n == 6 {
				out, value, n = append(out, digits[value]), 0, 0
			}
		}
	}
	width, left := 2, 1
	add := func() {
		if left--; left == 0 {
			left = 1 << width
			width++
		}
	}
	for i := range len(text) {
		write(0, width)
		write(int(text[i]), 8)
		add()
		if i > 0 {
			add()
		}
	}
	write(2, width)
	write(0, 6)
	return string(out)
}

// field returns a field of a message in protobuf.
func field(number protowire.Number, value string) string {
	return string(protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value))
}

func attribute(key, value string) string { return field(1, key) + field(2, field(1, value)) }

func ofOTLP() []attack {
	const traces, logs = "/i/v0/ai/otel", "/i/v1/logs"
	proto := func(name, path string, status int, build func(size int) string) attack {
		return attack{"OTLP: " + name, func(size int) *route.Request {
			r := body(path, build(size))
			r.ContentType = "application/x-protobuf"
			return r
		}, status}
	}
	text := func(name, path string, status int, build func(size int) string) attack {
		return attack{"OTLP/JSON: " + name, func(size int) *route.Request { return body(path, build(size)) }, status}
	}
	ai := field(9, attribute("gen_ai.a", "b"))
	// The most records and spans that one request may have.
	records := func(size int, record string) string {
		return strings.Repeat(field(2, record), min(size/(len(record)+2)+1, 10_000))
	}
	spans := func(size int, span string) string {
		return strings.Repeat(field(2, span), min(size/(len(span)+2)+1, 100))
	}
	logsOf := func(resource, scope, records string) string {
		return field(1, field(1, resource)+field(2, field(1, scope)+records))
	}
	many := func(size int) string {
		return attributesAt(1, size, func(i int) string { return attribute(strconv.Itoa(i), "v") })
	}
	aRecord := func(fields string) string { return logsOf("", "", field(2, fields)) }
	aSpan := func(fields string) string { return logsOf("", "", field(2, ai+fields)) }
	jsonOf := func(record string) string {
		return `{"resourceLogs":[{"scopeLogs":[{"logRecords":[` + record + `]}]}]}`
	}
	quotes := func(size int) string { return repeat(size, `"`) }
	event := func(name string, list string) string { return field(11, field(2, name)+list) }
	listed := func(number protowire.Number, list string, size int) string {
		return attributesAt(number, size, func(int) string { return list })
	}
	return []attack{
		proto("many records", logs, http.StatusOK, func(size int) string { return logsOf("", "", records(size, "")) }),
		proto("many records of a large resource", logs, http.StatusRequestEntityTooLarge, func(size int) string {
			return logsOf(many(size/2), "", records(size/2, ""))
		}),
		proto("many records of a long attribute", logs, http.StatusRequestEntityTooLarge, func(size int) string {
			return logsOf(field(1, attribute("a", quotes(size/2))), "", records(size/2, ""))
		}),
		proto("records of a long attribute", logs, http.StatusOK, func(size int) string {
			return logsOf(field(1, attribute("a", quotes(size/2))), "",
				records(size/2, field(5, field(1, repeat(5000, "x")))))
		}),
		proto("many records of a long scope", logs, http.StatusRequestEntityTooLarge, func(size int) string {
			return logsOf("", field(1, quotes(size/4))+field(2, quotes(size/4)), records(size/2, ""))
		}),
		proto("many records of a user with a long name", logs, http.StatusRequestEntityTooLarge, func(size int) string {
			return logsOf(field(1, attribute("user.id", quotes(size/2)))+field(1, attribute("session.id", "s")), "",
				records(size/2, ""))
		}),
		proto("many resources", logs, http.StatusOK, func(size int) string {
			return repeat(size,
				logsOf(field(1, attribute("a", "b")), "", records(0, field(5, field(1, repeat(200, "x"))))))
		}),
		proto("many scopes", logs, http.StatusOK, func(size int) string {
			return field(1, field(1, field(1, attribute("a", "b")))+repeat(size, field(2, field(1, field(1, "s"))+
				field(2, field(5, field(1, repeat(200, "x")))))))
		}),
		proto("a record with many attributes", logs, http.StatusOK, func(size int) string {
			return aRecord(attributesAt(6, size, func(i int) string {
				return attribute(strconv.Itoa(i), "v")
			}))
		}),
		proto("a record with an attribute many times", logs, http.StatusOK, func(size int) string {
			return aRecord(listed(6, attribute("user.id", "v"), size))
		}),
		proto("a record with values that nest deeply", logs, http.StatusOK, func(size int) string {
			value := field(1, "x")
			for range 40 {
				value = field(5, field(1, value))
			}
			return aRecord(field(5, field(5, attributesAt(1, size, func(int) string {
				return value
			}))))
		}),
		proto("a record with objects that nest deeply", logs, http.StatusOK, func(size int) string {
			value := field(1, "x")
			for range 30 {
				value = field(6, field(1, field(1, "k")+field(2, value)))
			}
			return aRecord(field(5, field(5, attributesAt(1, size, func(int) string {
				return value
			}))))
		}),
		proto("spans of a large resource", traces, http.StatusOK, func(size int) string {
			return logsOf(many(size/2), "", spans(size/2, ai+field(9, attribute("a", repeat(5000, "x")))))
		}),
		proto("spans of a resource with a long attribute", traces, http.StatusOK, func(size int) string {
			return logsOf(field(1, attribute("gen_ai.input.messages", "["+repeat(size/2, `"\"",`)+"1]")), "",
				spans(size/2, ai+field(9, attribute("a", repeat(5000, "x")))))
		}),
		proto("a span with many attributes", traces, http.StatusOK, func(size int) string {
			return aSpan(attributesAt(9, size, func(i int) string {
				return attribute(strconv.Itoa(i), "v")
			}))
		}),
		proto("a span with an attribute many times", traces, http.StatusOK, func(size int) string {
			return aSpan(listed(9, attribute("user.id", "v"), size))
		}),
		proto("a span with many events", traces, http.StatusOK, func(size int) string {
			return aSpan(repeat(size, event("gen_ai.user.message", field(3, attribute("content", "c")))))
		}),
		proto("a failed span with many exceptions", traces, http.StatusOK, func(size int) string {
			return aSpan(field(15, "\x18\x02") + repeat(size, event("exception", field(3, attribute("a", "b")))))
		}),
		proto("a span whose message is JSON in a string", traces, http.StatusOK, func(size int) string {
			return aSpan(field(9, attribute("gen_ai.input.messages", "["+repeat(size, `"\"",`)+"1]")))
		}),
		proto("a span whose messages are almost JSON", traces, http.StatusOK, func(size int) string {
			return aSpan(repeat(size, event("gen_ai.choice", field(3, attribute("content", "[1,2,3")))))
		}),
		proto("spans that are not about AI", traces, http.StatusOK, func(size int) string {
			return logsOf(many(size/2), "",
				strings.Repeat(field(2, field(9, attribute("http", repeat(size/2/900, "x")))), 900))
		}),
		proto("empty values", logs, http.StatusOK, func(size int) string {
			return aRecord(repeat(min(size, 400_000), field(6, "")))
		}),
		proto("texts that are no UTF-8", logs, http.StatusOK, func(size int) string {
			value := field(1, "\xff")
			for range 30 {
				value = field(6, field(1, field(1, "k\xff")+field(2, value)))
			}
			return aRecord(field(5, field(5, attributesAt(1, size, func(int) string {
				return value
			}))))
		}),
		proto("a value that nests too deeply", logs, http.StatusBadRequest, func(size int) string {
			value := field(1, "x")
			for len(value) < size {
				value = field(5, field(1, value))
			}
			return aRecord(field(5, value))
		}),
		text("many records", logs, http.StatusOK, func(size int) string {
			return jsonOf(strings.Repeat("{},", min(size/3, 9999)) + "{}")
		}),
		text("many records of a long attribute", logs, http.StatusRequestEntityTooLarge, func(size int) string {
			return `{"resourceLogs":[{"resource":{"attributes":[{"key":"a","value":{"stringValue":"` +
				repeat(size/2, `\"`) + `"}}]},"scopeLogs":[{"logRecords":[` +
				strings.Repeat("{},", min(size/6, 9999)) + `{}]}]}]}`
		}),
		text("many requests", logs, http.StatusOK, func(size int) string {
			return repeat(size, jsonOf(`{"body":{"stringValue":"`+repeat(200, "x")+`"}}`)+"\n")
		}),
		text("many requests and a fault", logs, http.StatusBadRequest, func(size int) string {
			return repeat(min(size, 400_000), `{"resourceLogs":[{}]}`+"\n") + "{"
		}),
		text("texts that are no UTF-8", logs, http.StatusOK, func(size int) string {
			return jsonOf(`{"body":{"stringValue":"` + repeat(size, "a\xff") + `"}}`)
		}),
		text("a request in a JSON string", logs, http.StatusOK, func(size int) string {
			return strconv.Quote(repeat(size, jsonOf(`{"body":{"stringValue":"`+repeat(200, "x")+`"}}`)))
		}),
		text("unknown members", logs, http.StatusBadRequest, func(size int) string {
			return `{` + fill(size, `"k%d":[{"a":1}]`) + `}`
		}),
		text("numbers that are none", logs, http.StatusOK, func(size int) string {
			return jsonOf(`{"body":{"stringValue":"a","x":[` + fill(size, "NaN") + `]}}`)
		}),
		text("an attribute many times", logs, http.StatusOK, func(size int) string {
			return jsonOf(`{"attributes":[` + fill(size, `{"key":"user.id","value":{"stringValue":"v"}}`) + `]}`)
		}),
		text("a span with many events", traces, http.StatusOK, func(size int) string {
			return `{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"ai.a","value":{"intValue":1}}],` +
				`"events":[` +
				fill(size, `{"name":"gen_ai.choice","attributes":[{"key":"a","value":{"intValue":1}}]}`) + `]}]}]}]}`
		}),
		text("values that their fields cannot hold", logs, http.StatusOK, func(size int) string {
			return jsonOf(`{"timeUnixNano":"x","attributes":[` +
				fill(size, `{"key":5,"value":{"intValue":"5.5","intValue":"x","bytesValue":"!"}},null`) + `]}`)
		}),
		text("plain values in the place of OTLP's", logs, http.StatusOK, func(size int) string {
			return jsonOf(`{"body":[` + fill(size, `1`) + `]}`)
		}),
		text("plain values that nest deeply", logs, http.StatusOK, func(size int) string {
			return jsonOf(`{"body":[` + fill(size, strings.Repeat("[", 40)+"1"+strings.Repeat("]", 40)) + `]}`)
		}),
		text("objects in the place of lists", logs, http.StatusOK, func(size int) string {
			return jsonOf(`{"attributes":{` +
				fill(size, `"k":{"kvlistValue":{"values":{"0":{"key":"a","value":1}}}}`) + `}}`)
		}),
		text("bad base64", logs, http.StatusOK, func(size int) string {
			return jsonOf(`{"body":{"bytesValue":"` + repeat(size, "A") + `!"}}`)
		}),
		text("names of an enum", traces, http.StatusOK, func(size int) string {
			return `{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"` + repeat(size, "x") +
				`","attributes":[{"key":"ai.a","value":{"intValue":1}}],"links":[` + fill(size, `{"kind":"1"}`) +
				`]}]}]}]}`
		}),
		text("values that nest too deeply beside a bad one", logs, http.StatusBadRequest, func(size int) string {
			return jsonOf(`{"flags":"x","body":` + repeat(size, "["))
		}),
		text("a string of escapes", logs, http.StatusOK, func(size int) string {
			return jsonOf(`{"body":{"stringValue":"` + repeat(size, `\u0022`) + `"}}`)
		}),
		text("a string of surrogates", logs, http.StatusOK, func(size int) string {
			return jsonOf(`{"body":{"stringValue":"` + repeat(size, `\ud83d\ude00`) + `"}}`)
		}),
	}
}

// attributesAt returns a field again and again, with values that value returns, until it has about size bytes.
func attributesAt(number protowire.Number, size int, value func(i int) string) string {
	var out strings.Builder
	for i := 0; out.Len() < size; i++ {
		out.WriteString(field(number, value(i)))
	}
	return out.String()
}
