package decode

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding/charmap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
)

const (
	formType = "application/x-www-form-urlencoded"
	// event has "?", ">" and "ÿ" so that its base64 has all of "+", "/" and padding in it.
	event = `{"event":"a","properties":{"q":"??>>??>~~ÿÿ","distinct_id":"u"}}`
)

func lz(text string) string { return encodeLZ64(utf16.Encode([]rune(text))) }

func TestWhatARequestMeans(t *testing.T) {
	std := base64.StdEncoding.EncodeToString
	gz := func(text string) string { return string(packOnce(t, newGzip, text)) }
	zl := string(packOnce(t, newZlib, event))
	raw := string(packOnce(t, newDeflate, event))
	br := string(packOnce(t, newBrotli, event))
	zs := string(packZstd(t, event))
	body := func(body string) Input { return Input{Body: []byte(body)} }
	encoded := func(body, encoding string) Input { return Input{Body: []byte(body), ContentEncoding: encoding} }
	form := func(body string) Input { return Input{Body: []byte(body), ContentType: formType} }
	large := batch(400)
	across := `{"event":"` + strings.Repeat("x", sniffed-3-len(`{"event":"`)) + "\U0001f642\"}" // three of its bytes

	for _, test := range []struct {
		name  string // with the section of the spec
		in    Input
		steps string
		want  string
	}{
		// 2.3 step 1: where the payload is.
		{"2.3 plain JSON", body(event), "plain", event},
		{"2.3 the query's data", Input{QueryData: event}, "query", event},
		{"2.3 the query's data goes before the body", Input{QueryData: event, Body: []byte(`{"no":1}`)}, "query",
			event},
		{"2.3 base64 in the query", Input{QueryData: std([]byte(event))}, "query+base64", event},
		{"2.3 base64 in the query with spaces for pluses",
			Input{QueryData: strings.ReplaceAll(std([]byte(event)), "+", " ")}, "query+base64", event},
		{"2.3 base64 of gzip in the query", Input{QueryData: std([]byte(gz(event))), QueryHint: "gzip"},
			"query+base64+gzip", event},
		{"2.3 lz64 in the query", Input{QueryData: lz(event), QueryHint: "LZ64"}, "query+lz64", event},
		{"2.3 query data is no form, whatever the content type", Input{QueryData: event, ContentType: formType},
			"query", event},

		// 2.3 step 2: bare base64.
		{"2.3 base64", body(std([]byte(event))), "base64", event},
		{"2.3 base64 without padding", body(base64.RawStdEncoding.EncodeToString([]byte(event))), "base64", event},
		{"2.3 URL-safe base64", body(base64.URLEncoding.EncodeToString([]byte(event))), "base64", event},
		{"2.3 URL-safe base64 without padding", body(base64.RawURLEncoding.EncodeToString([]byte(event))), "base64",
			event},
		{"2.3 base64 in lines", body(std([]byte(event))[:40] + "\r\n" + std([]byte(event))[40:] + "\r\n"), "base64",
			event},
		{"2.3 base64 of gzip", body(std([]byte(gz(event)))), "base64+gzip", event},
		{"2.3 base64 of base64", body(std([]byte(std([]byte(event))))), "base64", event},
		{"2.3 long base64", body(std([]byte(large))), "base64", large},

		// 2.3 step 3: forms.
		{"2.3 form with JSON", form("data=" + url.QueryEscape(event)), "form", event},
		{"2.3 form with JSON that needs no unescaping", form(`data={"a":1}&ip=1`), "form", `{"a":1}`},
		{"2.3 form with base64", form("data=" + url.QueryEscape(std([]byte(event)))), "form+base64", event},
		{"2.3 form with unescaped base64", form("data=" + std([]byte(event))), "form+base64", event},
		{"2.3 form with base64 of gzip",
			form("data=" + url.QueryEscape(std([]byte(gz(event)))) + "&compression=gzip-js"), "form+base64+gzip",
			event},
		{"2.3 form with lz64", form("data=" + url.QueryEscape(lz(event)) + "&compression=lz64"), "form+lz64", event},
		{"2.3 form with lz64, named first", form("compression=lz-string&data=" + url.QueryEscape(lz(event))),
			"form+lz64", event},
		{"2.3 form with unescaped lz64", form("data=" + lz(event) + "&compression=lz64"), "form+lz64", event},
		{"2.3 form after other fields", form("ip=1&_=1795383045000&data=" + url.QueryEscape(event)), "form", event},
		{"2.3 form with another content type", body("data=" + url.QueryEscape(event)), "form", event},
		{"2.3 form without data stays as it is", form("_=1795383045000&ip=1"), "form", "_=1795383045000&ip=1"},
		{"2.3 form content type on JSON", form(event), "plain", event},
		{"2.3 form content type on JSON that looks like a form", form(`{"u":"https://x/?a=1&data=2"}`), "plain",
			`{"u":"https://x/?a=1&data=2"}`},
		{"2.3 form content type on gzip", form(gz(event)), "gzip", event},
		{"2.3 form content type on base64", form(std([]byte(event))), "base64", event},
		{"0 gzip of a form", form(gz("data=" + url.QueryEscape(event))), "form+gzip", event},

		// 2.3 step 4 and section 0: hints.
		{"2.3 lz64 by Content-Encoding", encoded(lz(event), "lz64"), "lz64", event},
		{"0 lz64 named by the form, gzip by the query",
			Input{Body: []byte("data=" + url.QueryEscape(lz(event)) + "&compression=lz64"), ContentType: formType,
				QueryHint: "gzip-js"}, "form+lz64", event},
		{"0 gzip-js on a plain form",
			Input{Body: []byte("data=" + url.QueryEscape(std([]byte(event)))), ContentType: formType,
				QueryHint: "gzip-js"}, "form+base64", event},
		{"0 gzip on JSON", encoded(event, "gzip"), "plain", event},
		{"0 br on JSON", encoded(event, "br"), "plain", event},
		{"0 br on JSON with a character across the end of what is looked at", encoded(across, "br"), "plain", across},
		{"0 zstd on JSON", encoded("["+event+"]", "zstd"), "plain", "[" + event + "]"},
		{"0 deflate on JSON", encoded(" \n"+event, "deflate"), "plain", " \n" + event},
		{"0 lz64 on JSON", encoded(event, "lz64"), "plain", event},
		{"0 lz64 on base64", encoded(std([]byte(event)), "lz64"), "base64", event},
		{"0 lz64 on base64 of gzip", encoded(std([]byte(gz(event))), "lz64"), "base64+gzip", event},
		{"0 several encodings on JSON", encoded(event, "gzip, gzip"), "plain", event},
		{"0 br on gzip", encoded(gz(event), "br"), "gzip", event},
		{"0 an unknown encoding on JSON", encoded(event, "aws-chunked"), "plain", event},
		{"0 br on a form",
			Input{Body: []byte("data=" + url.QueryEscape(event)), ContentType: formType, ContentEncoding: "br"}, "form",
			event},

		// 2.4: decompression.
		{"2.4 gzip by its bytes", body(gz(event)), "gzip", event},
		{"2.4 gzip by query", Input{Body: []byte(gz(event)), QueryHint: "gzip-js"}, "gzip", event},
		{"2.4 gzip of several members", body(gz(event[:20]) + gz(event[20:])), "gzip", event},
		{"2.4 gzip of nothing", body(gz("")), "gzip", ""},
		{"2.4 large gzip", body(gz(large)), "gzip", large},
		{"2.4 gzip of base64", body(gz(std([]byte(event)))), "base64+gzip", event},
		{"2.4 gzip of base64 of gzip", body(gz(std([]byte(gz(event))))), "base64+gzip", event},
		{"2.4 lz64 of nothing", Input{Body: []byte("Q==="), QueryHint: "lz64"}, "lz64", ""},
		{"2.4 text that is neither JSON nor base64", body("hello, world"), "plain", "hello, world"},
		{"2.4 base64 of what is no JSON stays as it is", body(std([]byte("hello, world"))), "plain",
			std([]byte("hello, world"))},
		{"2.4 a scalar stays as it is", body("null"), "plain", "null"},

		// Section 0: zstd, br, deflate.
		{"0 zstd", encoded(zs, "zstd"), "zstd", event},
		{"0 zstd by its bytes", body(zs), "zstd", event},
		{"0 zstd that does not say its length", encoded(string(pack(t, newZstdStream, event)), "ZSTD"), "zstd", event},
		{"0 br", encoded(br, "br"), "br", event},
		{"0 br that begins with a bracket", encoded(string(packOnce(t, newBrotli, large)), "br"), "br", large},
		{"0 deflate with the zlib header", encoded(zl, "deflate"), "deflate", event},
		{"0 deflate without", encoded(raw, "deflate"), "deflate", event},
		{"0 zlib by its bytes", body(zl), "deflate", event},
		{"0 zlib that the header calls gzip", encoded(zl, "gzip"), "deflate", event},
		{"0 zlib that the query calls gzip", Input{Body: []byte(zl), QueryHint: "gzip-js"}, "deflate", event},
		{"0 zlib of gzip", body(string(packOnce(t, newZlib, gz(event)))), "deflate+gzip", event},
		{"0 base64 of zlib in a form", body("data=" + url.QueryEscape(std([]byte(zl)))), "deflate+form+base64", event},
		{"0 text that begins with the letters of a zlib header", body("x^2"), "plain", "x^2"},
		{"0 identity is no encoding", encoded(zl, "identity, deflate"), "deflate", event},
		{"0 br of a form",
			Input{Body: packOnce(t, newBrotli, "data="+url.QueryEscape(std([]byte(event)))), ContentType: formType,
				ContentEncoding: "br"}, "br+form+base64", event},
		{"0 br of gzip", encoded(string(packOnce(t, newBrotli, gz(event))), "br"), "br+gzip", event},

		// Several encodings, one in the other.
		{"0 gzip of gzip", body(gz(gz(event))), "gzip", event},
		{"0 gzip of gzip, and the header says so", encoded(gz(gz(event)), "gzip, gzip"), "gzip", event},
		{"0 four times gzip", body(gzipTimes(t, 4, event)), "gzip", event},
		{"0 gzip that the header names twice", encoded(gz(event), "gzip, gzip"), "gzip", event},
		{"0 br of gzip, and the header says so", encoded(string(packOnce(t, newBrotli, gz(event))), "gzip, br"),
			"br+gzip",
			event},
		{"0 gzip of br", encoded(gz(br), "br, gzip"), "br+gzip", event},
		{"0 deflate of br of zstd", encoded(string(packOnce(t, newZlib, string(packOnce(t, newBrotli, zs)))),
			"zstd, br, deflate"), "zstd+br+deflate", event},
		{"0 many encodings on JSON", encoded(event, "br, br, br, br, br"), "plain", event},
		{"0 base64 of zstd", body(std([]byte(zs))), "zstd+base64", event},

		// What stands behind the last member of gzip.
		{"2.4 gzip with zeros after it", body(gz(event) + strings.Repeat("\x00", 20)), "gzip", event},
		{"2.4 gzip with text after it", body(gz(event) + "garbage, and more of it"), "gzip", event},
		{"2.4 gzip with a beginning of gzip after it", body(gz(event) + "\x1f\x8b"), "gzip", event},
		{"2.4 gzip of several members with zeros after them", body(gz(event[:20]) + gz(event[20:]) + "\x00"), "gzip",
			event},
		{"2.4 large gzip with zeros after it", body(gz(large) + strings.Repeat("\x00", 4096)), "gzip", large},
		{"2.4 large gzip of several members with text after them", body(gz(large[:1000]) + gz(large[1000:]) + "\r\n"),
			"gzip", large},

		// Bytes that were written as characters.
		{"2.4 gzip as Latin-1 text", body(latin1(gz(event))), "latin1+gzip", event},
		{"2.4 gzip as Latin-1 text, named gzip", encoded(latin1(gz(event)), "gzip"), "latin1+gzip", event},
		{"2.4 gzip as text of Windows-1252", body(windows1252(gz(large))), "latin1+gzip", large},
		{"0 zstd as Latin-1 text", body(latin1(zs)), "zstd+latin1", event},
		{"0 deflate as Latin-1 text", encoded(latin1(zl), "deflate"), "deflate+latin1", event},
		{"0 br as Latin-1 text", encoded(latin1(br), "br"), "br+latin1", event},
		{"0 br that begins with a bracket, as text of Windows-1252",
			encoded(windows1252(string(packOnce(t, newBrotli, large))), "br"), "br+latin1", large},
		{"2.3 form with gzip as Latin-1 text", form("data=" + url.QueryEscape(latin1(gz(event)))), "form+latin1+gzip",
			event},
		{"2.3 gzip as Latin-1 text in a JSON string", body(quote(latin1(gz(event)))), "quotes+latin1+gzip", event},

		// A request inside a JSON string.
		{"2.3 JSON in a JSON string", body(quote(event)), "quotes", event},
		{"2.3 JSON in a JSON string with white space around it", body("\ufeff \r\n" + quote(" "+event) + "\n"),
			"quotes",
			" " + event},
		{"2.3 JSON in three JSON strings", body(quote(quote(quote(event)))), "quotes", event},
		{"2.3 gzip of JSON in a JSON string", body(gz(quote(event))), "quotes+gzip", event},
		{"2.3 JSON in a JSON string in the query", Input{QueryData: quote("[" + event + "]")}, "query+quotes",
			"[" + event + "]"},
		{"2.3 base64 in a JSON string", body(quote(std([]byte(event)))), "quotes+base64", event},
		{"2.3 a form in a JSON string", body(quote("data=" + url.QueryEscape(event))), "form+quotes", event},
		{"2.3 a pair of surrogates in a JSON string", body(`"{\"a\":\"\ud83d\ude00\"}"`), "quotes", `{"a":"😀"}`},
		{"2.3 half of a pair in a JSON string", body(`"{\"a\":\"\ud83d\"}"`), "quotes", "{\"a\":\"\ufffd\"}"},
		{"2.3 a JSON string of something else stays as it is", body(`"hello"`), "plain", `"hello"`},

		// Multipart forms.
		{"2.3 multipart form", body(multipartForm("data", event)), "multipart", event},
		{"2.3 multipart form behind an empty line", body("\r\n" + multipartForm("data", event)), "multipart", event},
		{"2.3 multipart form with base64 of gzip", body(multipartForm("ip", "1", "data", std([]byte(gz(event))))),
			"multipart+base64+gzip", event},
		{"2.3 multipart form with gzip", body(multipartForm("data", gz(event))), "multipart+gzip", event},
		{"2.3 multipart form with lz64", body(multipartForm("data", lz(event), "compression", "lz64")),
			"multipart+lz64",
			event},
		{"2.3 gzip of a multipart form", body(gz(multipartForm("data", event))), "multipart+gzip", event},

		// Charsets.
		{"2.13 ISO 8859-1", Input{Body: []byte("{\"a\":\"\xe4\"}"),
			ContentType: "application/json; charset=ISO-8859-1"},
			"charset", `{"a":"ä"}`},
		{"2.13 Windows-1252", Input{Body: []byte("{\"a\":\"\x80\"}"), ContentType: `text/plain;charset="windows-1252"`},
			"charset", `{"a":"€"}`},
		{"2.13 Shift JIS", Input{Body: []byte("{\"a\":\"\x93\xfa\x96\x7b\"}"),
			ContentType: "text/plain; charset=Shift_JIS"},
			"charset", `{"a":"日本"}`},
		{"2.13 GBK", Input{Body: []byte("{\"a\":\"\xd6\xd0\xb9\xfa\"}"), ContentType: "text/plain; charset=gbk"},
			"charset",
			`{"a":"中国"}`},
		{"2.13 ISO-2022-JP, which is ASCII to look at",
			Input{Body: []byte("{\"a\":\"\x1b$BF|K\\\x1b(B\"}"), ContentType: "text/plain; charset=iso-2022-jp"},
			"charset",
			`{"a":"日本"}`},
		{"2.13 gzip of ISO 8859-1",
			Input{Body: []byte(gz("{\"a\":\"\xe4\"}")), ContentType: "application/json; charset=latin1"},
			"gzip+charset",
			`{"a":"ä"}`},
		{"2.13 a form with ISO 8859-1 in it",
			Input{Body: []byte("data=%7B%22a%22%3A%22%E4%22%7D"), ContentType: formType + "; charset=ISO-8859-1"},
			"form+charset", `{"a":"ä"}`},
		{"2.13 a multipart form whose field declares a charset",
			body(strings.Replace(multipartForm("data", "{\"a\":\"\xe4\"}"), "name=\"data\"",
				"name=\"data\"\r\nContent-Type: text/plain; charset=latin1", 1)), "multipart+charset", `{"a":"ä"}`},
		{"2.13 what is UTF-8 is UTF-8, whatever is declared",
			Input{Body: []byte(event), ContentType: "application/json; charset=ISO-8859-1"}, "plain", event},
		{"2.13 an unknown charset on UTF-8", Input{Body: []byte(event),
			ContentType: "application/json; charset=klingon"},
			"plain", event},
		{"2.13 surrogates that are declared to be UTF-8",
			Input{Body: []byte("{\"a\":\"\xed\xa0\xbd\xed\xb8\x80\"}"), ContentType: "text/plain; charset=UTF-8"},
			"plain",
			`{"a":"😀"}`},
		{"2.13 UTF-16, little end first, with a byte order mark", body("\xff\xfe" + utf16Of(event, false)), "charset",
			event},
		{"2.13 UTF-16, big end first, with a byte order mark", body("\xfe\xff" + utf16Of(event, true)), "charset",
			event},
		{"2.13 UTF-16, little end first", body(utf16Of(event, false)), "charset", event},
		{"2.13 UTF-16, big end first",
			Input{Body: []byte(utf16Of(" "+event, true)), ContentType: "application/json; charset=utf-16be"}, "charset",
			" " + event},
		{"2.13 UTF-16 with a wrong charset",
			Input{Body: []byte(utf16Of(event, false)), ContentType: "application/json; charset=utf-8"}, "charset",
			event},
		{"2.13 gzip of UTF-16", body(gz(utf16Of(event, false))), "gzip+charset", event},
		{"2.13 a form in UTF-16", body(gz("\xff\xfe" + utf16Of("data="+std([]byte(event)), false))),
			"form+base64+gzip+charset",
			event},

		// 2.13 and JSON readers: a byte order mark says nothing.
		{"2.13 byte order mark", body("\ufeff" + event), "plain", event},
		{"2.13 byte order mark in gzip", body(gz("\ufeff" + event)), "gzip", event},
		{"2.13 byte order mark in base64", body(std([]byte("\ufeff" + event))), "base64", event},
		{"2.13 only one of two marks", body("\ufeff\ufeff" + event), "plain", "\ufeff" + event},
	} {
		t.Run(test.name, func(t *testing.T) {
			budget := memory.NewBudget(1 << 28)
			decoder := newDecoder(1<<20, budget)
			sent := string(test.in.Body)
			payload, err := decoder.Decode(test.in)
			require.NoError(t, err)
			require.Equal(t, test.want, string(payload.Bytes))
			require.Equal(t, test.steps, payload.Steps.String())
			require.GreaterOrEqual(t, budget.InUse(), int64(len(payload.Bytes)))
			require.Equal(t, sent, string(test.in.Body), "the body is not ours")
			payload.Release()
			payload.Release()
			require.Zero(t, budget.InUse())
		})
	}
}

func gzipTimes(tb testing.TB, times int, text string) string {
	for range times {
		text = string(packOnce(tb, newGzip, text))
	}
	return text
}

// latin1 and windows1252 write every byte as the character that it is in the charset. As browsers do it, a byte that is
// none becomes the control character of that number.
func latin1(packed string) string { return recode(charmap.ISO8859_1, packed) }

func windows1252(packed string) string { return recode(charmap.Windows1252, packed) }

func recode(charset *charmap.Charmap, packed string) string {
	var out strings.Builder
	for i := range len(packed) {
		character := charset.DecodeByte(packed[i])
		if character == utf8.RuneError {
			character = rune(packed[i])
		}
		out.WriteRune(character)
	}
	return out.String()
}

func quote(text string) string {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		panic(err)
	}
	return strings.TrimSpace(out.String())
}

func utf16Of(text string, bigEndian bool) string {
	var out []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		if bigEndian {
			out = append(out, byte(unit>>8), byte(unit))
		} else {
			out = append(out, byte(unit), byte(unit>>8))
		}
	}
	return string(out)
}

func multipartForm(fields ...string) string {
	var out strings.Builder
	for i := 0; i < len(fields); i += 2 {
		out.WriteString("------boundary\r\nContent-Disposition: form-data; name=\"" + fields[i] + "\"\r\n\r\n" +
			fields[i+1] + "\r\n")
	}
	return out.String() + "------boundary--\r\n"
}

// A header of zlib has two bytes only.
func TestBrotliThatBeginsLikeZlibIsBrotliWhereItIsNamed(t *testing.T) {
	// A block of 0x1009c8 bytes that are not compressed, and the end.
	text := event + strings.Repeat(" ", 0x1009c8-len(event))
	in := Input{Body: []byte("\x78\x9c\x00\x11" + text + "\x03"), ContentEncoding: "br"}
	payload, err := newDecoder(1<<24, memory.NewBudget(1<<26)).Decode(in)
	require.NoError(t, err)
	defer payload.Release()
	require.True(t, payload.Steps.Has(StepBrotli))
	require.Equal(t, text, string(payload.Bytes))
}

func TestBrotliThatBeginsWithABracketDoes(t *testing.T) {
	require.Equal(t, byte('['), packOnce(t, newBrotli, batch(400))[0])
}

func TestWhatIsWrongWithARequest(t *testing.T) {
	const limit = 1000
	gz := string(packOnce(t, newGzip, event))
	long := `{"a":"` + strings.Repeat("x", limit) + `"}` // 1008 bytes
	cut := func(b []byte) string { return string(b[:len(b)-5]) }
	encoded := func(body, encoding string) Input { return Input{Body: []byte(body), ContentEncoding: encoding} }
	const decoding = "failed to decode request: "
	const over = "maximum event size exceeded: "

	for _, test := range []struct {
		name string // with the section of the spec
		in   Input
		code events.Code
		want string
	}{
		{"2.3 nothing", Input{}, events.Invalid, "request missing data payload"},
		{"2.3 empty form data", Input{Body: []byte("data="), ContentType: formType}, events.Invalid,
			"request missing data payload"},
		{"2.3 no form", Input{Body: []byte("hello, world"), ContentType: formType}, events.Invalid,
			decoding + "expected form data in POST request payload"},
		{"2.3 bad escape", Input{Body: []byte("data=%7b%2"), ContentType: formType}, events.Invalid,
			decoding + "invalid urlencoded form data"},
		{"2.3 no hex", Input{Body: []byte("data=%zz"), ContentType: formType}, events.Invalid,
			decoding + "invalid urlencoded form data"},
		{"2.3 data twice", Input{Body: []byte("data={}&data={}"), ContentType: formType}, events.Invalid,
			decoding + "invalid urlencoded form data"},
		{"2.3 broken base64 of JSON", Input{Body: []byte(base64.StdEncoding.EncodeToString([]byte(long)) + "*")},
			events.Invalid, decoding + "invalid base64 data"},
		{"2.4 truncated gzip", Input{Body: []byte(gz[:len(gz)-9])}, events.Invalid, decoding + "invalid GZIP data"},
		{"2.4 gzip with a wrong checksum", Input{Body: []byte(gz[:len(gz)-8] + "0000" + gz[len(gz)-4:])},
			events.Invalid, decoding + "invalid GZIP data"},
		{"2.4 gzip header only", Input{Body: []byte("\x1f\x8b\x08")}, events.Invalid, decoding + "invalid GZIP data"},
		{"2.4 gzip with a broken member after it", Input{Body: []byte(gz + gz[:30])}, events.Invalid,
			decoding + "invalid GZIP data"},
		{"2.4 named gzip but neither gzip nor text", encoded("\x1f\x8b\xff", "gzip"), events.Invalid,
			decoding + "invalid GZIP data"},
		{"2.4 gzip of no text", Input{Body: packOnce(t, newGzip, "\xff{}")}, events.Invalid,
			decoding + "invalid gzip data"},
		{"2.4 gzip five times", Input{Body: []byte(gzipTimes(t, 5, event))}, events.Invalid,
			decoding + "the request is compressed more than 4 times"},
		{"2.4 gzip whose bytes a program replaced", Input{Body: []byte(strings.ToValidUTF8(gz, "\ufffd"))},
			events.Invalid,
			errMangled.Error()},
		{"2.4 gzip whose bytes became question marks", encoded("\x1f?\x08"+gz[3:], "gzip"), events.Invalid,
			errMangled.Error()},
		{"2.4 gzip whose bytes a program replaced, in a JSON string",
			Input{Body: []byte("\"\\u001f\\ufffd\\b" + strings.Repeat("\\u0000", 20) + "\"")}, events.Invalid,
			errMangled.Error()},
		{"2.4 gzip as Latin-1 text, of which a part was replaced", Input{Body: []byte(latin1(gz) + "\ufffd")},
			events.Invalid, errMangled.Error()},
		{"0 zstd whose bytes a program replaced",
			encoded(strings.ToValidUTF8(string(packZstd(t, event)), "\ufffd"), "zstd"), events.Invalid,
			errMangled.Error()},
		{"0 deflate whose bytes a program replaced",
			encoded(strings.ToValidUTF8(string(packOnce(t, newZlib, event)), "\ufffd"), "deflate"), events.Invalid,
			errMangled.Error()},
		{"0 JSON with a control character that is named br", encoded("{\"\u65e5\":\"\x01\"}", "br"), events.Invalid,
			decoding + "invalid BROTLI data"},
		{"2.3 a JSON string without end", Input{Body: []byte(`"{\"a\":1}`)}, events.Invalid,
			decoding + "invalid JSON string around the request"},
		{"2.3 text behind a JSON string", Input{Body: []byte(`"{\"a\":1}" x`)}, events.Invalid,
			decoding + "invalid JSON string around the request"},
		{"2.3 four JSON strings, one in the other", Input{Body: []byte(quote(quote(quote(quote(event)))))},
			events.Invalid,
			decoding + "the request lies in more than 3 JSON strings, one in the other"},
		{"2.3 a multipart form without data", Input{Body: []byte(multipartForm("other", event))}, events.Invalid,
			decoding + "the multipart form has no field data"},
		{"2.3 a multipart form with empty data", Input{Body: []byte(multipartForm("data", ""))}, events.Invalid,
			"request missing data payload"},
		{"2.3 a multipart form with data twice", Input{Body: []byte(multipartForm("data", event, "data", event))},
			events.Invalid, decoding + "the multipart form has more than one field data"},
		{"2.3 a multipart form that is cut", Input{Body: []byte(multipartForm("data", event)[:120])},
			events.Invalid, decoding + "the multipart body ends before its closing boundary"},
		{"2.4 no lz64", Input{Body: []byte("hello"), QueryHint: "lz64"}, events.Invalid,
			decoding + "decompress_lz64: failed decompress to UTF16"},
		{"2.4 no text", Input{Body: []byte("\xff{}")}, events.Invalid,
			decoding + "invalid UTF8 in request payload"},
		{"0 many encodings", encoded(gz, "gzip, gzip, gzip, gzip, gzip"), events.Invalid,
			decoding + "Content-Encoding names more than 4 encodings"},
		{"0 truncated zstd", encoded(cut(packZstd(t, event)), "zstd"), events.Invalid, decoding + "invalid ZSTD data"},
		{"0 no zstd", encoded("\x00\x01\x02\x03", "zstd"), events.Invalid, decoding + "invalid ZSTD data"},
		{"0 truncated br", encoded(cut(packOnce(t, newBrotli, event)), "br"), events.Invalid,
			decoding + "invalid BROTLI data"},
		{"0 truncated zlib", encoded(cut(packOnce(t, newZlib, event)), "deflate"), events.Invalid,
			decoding + "invalid DEFLATE data"},
		{"0 truncated deflate", encoded(cut(packOnce(t, newDeflate, event)), "deflate"), events.Invalid,
			decoding + "invalid DEFLATE data"},
		{"2.5 plain", Input{Body: []byte(long)}, events.TooLarge,
			over + "Uncompressed payload size limit 1000 exceeded: 1008"},
		{"2.5 gzip", Input{Body: packOnce(t, newGzip, long)}, events.TooLarge,
			over + "Decompressed payload would exceed 1000 bytes (got 1008 bytes)"},
		{"2.5 zlib", encoded(string(packOnce(t, newZlib, long)), "deflate"), events.TooLarge,
			over + "Decompressed payload would exceed 1000 bytes (got 1008 bytes)"},
		{"2.5 deflate", encoded(string(packOnce(t, newDeflate, long)), "deflate"), events.TooLarge,
			over + "Decompressed payload would exceed 1000 bytes (got 1008 bytes)"},
		{"2.5 br", encoded(string(packOnce(t, newBrotli, long)), "br"), events.TooLarge,
			over + "Decompressed payload would exceed 1000 bytes (got 1008 bytes)"},
		{"2.5 zstd", encoded(string(packZstd(t, long)), "zstd"), events.TooLarge,
			over + "Decompressed payload would exceed 1000 bytes (got 1008 bytes)"},
		{"2.5 zstd that does not say its length", encoded(string(pack(t, newZstdStream, long)), "zstd"),
			events.TooLarge, over + "Decompressed payload would exceed 1000 bytes (got 1008 bytes)"},
		{"2.5 lz64", Input{Body: []byte(lz(long)), QueryHint: "lz64"}, events.TooLarge,
			over + "Decompressed LZ64 payload would exceed 1000 bytes"},
		{"2.5 base64", Input{Body: []byte(base64.StdEncoding.EncodeToString([]byte(long)))}, events.TooLarge,
			over + "Uncompressed payload size limit 1000 exceeded: 1008"},
	} {
		t.Run(test.name, func(t *testing.T) {
			budget := memory.NewBudget(1 << 28)
			payload, err := newDecoder(limit, budget).Decode(test.in)
			require.Nil(t, payload)
			require.EqualError(t, err, test.want)
			var coded *events.Error
			require.ErrorAs(t, err, &coded)
			require.Equal(t, test.code, coded.Code)
			require.Zero(t, budget.InUse())
		})
	}
}

// The caller says what to make of a bad byte in JSON. If it can make nothing of it, Malformed is the answer.
func TestJSONThatIsNotUTF8IsHandedOverAsMalformed(t *testing.T) {
	for _, test := range []struct {
		name string
		in   Input
		text string
		want string
	}{
		{"plain", Input{Body: []byte(" [\"\xff\"]")}, " [\"\xff\"]", "invalid UTF8 in request payload"},
		{"gzip", Input{Body: packOnce(t, newGzip, "{\"\xff\"}")}, "{\"\xff\"}", "invalid gzip data"},
		{"named gzip", Input{Body: []byte("{\"\xff\"}"), ContentEncoding: "gzip"}, "{\"\xff\"}", "invalid GZIP data"},
		{"a surrogate beside what is no text", Input{Body: []byte("{\"\xed\xa0\x80\xff\"}")}, "{\"\ufffd\xff\"}",
			"invalid UTF8 in request payload"},
		{"half of a surrogate", Input{Body: []byte("{\"\xed\xa0")}, "{\"\xed\xa0", "invalid UTF8 in request payload"},
	} {
		t.Run(test.name, func(t *testing.T) {
			payload, err := newDecoder(1000, nil).Decode(test.in)
			require.NoError(t, err)
			defer payload.Release()
			require.Equal(t, test.text, string(payload.Bytes))
			require.EqualError(t, payload.Malformed, "failed to decode request: "+test.want)
		})
	}
}

func TestAPayloadOfJustTheLimitIsDecoded(t *testing.T) {
	text := batch(50)
	for name, in := range map[string]Input{
		"plain":   {Body: []byte(text)},
		"gzip":    {Body: packOnce(t, newGzip, text)},
		"zlib":    {Body: packOnce(t, newZlib, text), ContentEncoding: "deflate"},
		"br":      {Body: packOnce(t, newBrotli, text), ContentEncoding: "br"},
		"zstd":    {Body: packZstd(t, text)},
		"lz64":    {Body: []byte(lz(text)), QueryHint: "lz64"},
		"streams": {Body: pack(t, newZstdStream, text)},

		"a JSON string": {Body: []byte(quote(text))},
		"UTF-16":        {Body: []byte(utf16Of(text, false))},
		"a charset": {Body: []byte(strings.ReplaceAll(text, "ü", "\xfc")),
			ContentType: "text/plain; charset=latin1"},
		"multipart form": {Body: []byte(multipartForm("data", text))},
	} {
		payload, err := newDecoder(int64(len(text)), nil).Decode(in)
		require.NoError(t, err, name)
		require.Equal(t, text, string(payload.Bytes), name)
		_, err = newDecoder(int64(len(text))-1, nil).Decode(in)
		require.ErrorContains(t, err, "maximum event size exceeded", name)
	}
}

func TestASpentBudgetRefusesEveryKindOfPayload(t *testing.T) {
	text := batch(50)
	latinText := strings.ReplaceAll(text, "ü", "\xfc")
	for name, in := range map[string]Input{
		"plain":  {Body: []byte(text)},
		"query":  {QueryData: text},
		"base64": {Body: []byte(base64.StdEncoding.EncodeToString([]byte(text)))},
		"form":   {Body: []byte("data=" + url.QueryEscape(text))},
		"gzip":   {Body: packOnce(t, newGzip, text)},
		"zlib":   {Body: packOnce(t, newZlib, text), ContentEncoding: "deflate"},
		"br":     {Body: packOnce(t, newBrotli, text), ContentEncoding: "br"},
		"zstd":   {Body: packZstd(t, text)},
		"lz64":   {Body: []byte(lz(text)), QueryHint: "lz64"},

		"gzip of gzip":   {Body: []byte(gzipTimes(t, 2, text))},
		"gzip as text":   {Body: []byte(latin1(gzipTimes(t, 1, text)))},
		"a JSON string":  {Body: []byte(quote(text))},
		"UTF-16":         {Body: []byte(utf16Of(text, false))},
		"a charset":      {Body: []byte(latinText), ContentType: "text/plain; charset=latin1"},
		"multipart form": {Body: []byte(multipartForm("data", text))},
	} {
		budget := memory.NewBudget(1 << 20)
		taken := budget.Lease()
		require.True(t, taken.Reserve(budget.Limit()-10<<10))
		_, err := newDecoder(1<<20, budget).Decode(in)
		require.Equal(t, memory.ErrSpent, err, name)
		require.Equal(t, budget.Limit()-10<<10, budget.InUse(), name)
	}
}

func TestACompressionInAnotherKeepsToTheLimitAndIsNotHeldWhole(t *testing.T) {
	const limit = 1 << 20
	bomb := strings.Repeat("x", 12<<20)
	for name, in := range map[string]Input{
		"gzip of gzip": {Body: []byte(gzipTimes(t, 2, bomb))},
		"four gzips":   {Body: []byte(gzipTimes(t, 4, bomb)), ContentEncoding: "gzip, gzip, gzip, gzip"},
		"gzip of br": {Body: []byte(gzipTimes(t, 1, string(packOnce(t, newBrotli, bomb)))),
			ContentEncoding: "br, gzip"},
		"gzip as text": {Body: []byte(latin1(gzipTimes(t, 1, bomb)))},
		"gzip in a JSON string, in a form": {
			Body: []byte("data=" + url.QueryEscape(quote(latin1(gzipTimes(t, 2, bomb))))), ContentType: formType},
	} {
		// The budget has room for what the limit allows, and no more than that.
		budget := memory.NewBudget(2*limit + 5<<20)
		_, err := newDecoder(limit, budget).Decode(in)
		require.Equal(t, events.TooLarge, events.CodeOf(err), "%s: %v", name, err)
		require.Zero(t, budget.InUse(), name)
	}
}

func TestAnArrayIsTakenOutOfItsString(t *testing.T) {
	for value, want := range map[string]struct{ text, fault string }{
		`"[1]"`:             {`{"a":"x","b":[1],"c":2}`, ""},
		`" [\"]\"] "`:       {`{"a":"x","b": ["]"] ,"c":2}`, ""},
		`"\"[1]\""`:         {`{"a":"x","b":"[1]","c":2}`, ""},
		`"[1],\"d\":[2]"`:   {"", errQuotedBatch.Error()},
		`"[1"`:              {"", errQuotedBatch.Error()},
		`"[1]]"`:            {"", errQuotedBatch.Error()},
		`"[\"]"`:            {"", errQuotedBatch.Error()},
		`"\"[1]\",\"d\":1"`: {"", errQuotedBatch.Error()},
	} {
		require.True(t, IsQuotedArray([]byte(value)), value)
		text := []byte(`{"a":"x","b":` + value + `,"c":2}`)
		budget := memory.NewBudget(1 << 20)
		payload, err := newDecoder(1<<20, budget).Decode(Input{Body: text})
		require.NoError(t, err)
		from := len(`{"a":"x","b":`)
		err = payload.Unquote(payload.Bytes, from, from+len(value))
		if want.fault != "" {
			require.EqualError(t, err, want.fault, value)
		} else {
			require.NoError(t, err, value)
			require.Equal(t, want.text, string(payload.Bytes))
			require.GreaterOrEqual(t, budget.InUse(), int64(len(payload.Bytes)))
		}
		payload.Release()
		require.Zero(t, budget.InUse(), value)
	}
	for _, value := range []string{``, `[1]`, `"{}"`, `"x"`, `""`, `"\"\""`, `5`} {
		require.False(t, IsQuotedArray([]byte(value)), value)
	}
}

func TestWhatMeansNothingInTheCharsetIsReplacedAndCounted(t *testing.T) {
	for name, in := range map[string]Input{
		"EUC-JP":  {Body: []byte("{\"a\":\"\xff\"}"), ContentType: "text/plain; charset=euc-jp"},
		"UTF-16":  {Body: []byte(utf16Of(`{"a":"`, false) + "\x3d\xd8" + utf16Of(`"}`, false))},
		"strings": {Body: []byte(`"{\"a\":\"\ud83d\"}"`)},
	} {
		payload, err := newDecoder(1<<20, nil).Decode(in)
		require.NoError(t, err, name)
		require.Equal(t, "{\"a\":\"\ufffd\"}", string(payload.Bytes), name)
		require.Equal(t, 1, payload.Replaced, name)
	}
}

func TestPlainTextIsNotCopied(t *testing.T) {
	for _, body := range []string{event, "data=" + `{"a":1}`, "\ufeff" + event} {
		in := Input{Body: []byte(body)}
		payload, err := newDecoder(1<<20, nil).Decode(in)
		require.NoError(t, err)
		require.Same(t, &in.Body[len(in.Body)-1], &payload.Bytes[len(payload.Bytes)-1])
	}
}

func TestConcurrentRequestsDoNotShareMemory(t *testing.T) {
	budget := memory.NewBudget(1 << 30)
	decoder := newDecoder(1<<20, budget)
	var clients sync.WaitGroup
	for i := range 8 {
		text := batch(i + 1)
		inputs := []Input{
			{Body: packOnce(t, newGzip, text)},
			{Body: packOnce(t, newZlib, text), ContentEncoding: "deflate"},
			{Body: packOnce(t, newBrotli, text), ContentEncoding: "br"},
			{Body: packZstd(t, text)},
			{Body: []byte(lz(text)), QueryHint: "lz64"},
			{Body: []byte(gzipTimes(t, 3, text) + "\x00")},
			{Body: []byte(windows1252(gzipTimes(t, 1, text)))},
			{Body: []byte(quote(quote(text)))},
			{Body: []byte(utf16Of(text, true))},
			{Body: []byte(multipartForm("data", gzipTimes(t, 1, text)))},
			{Body: []byte("data=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(text))))},
		}
		clients.Go(func() {
			for range 10 {
				for _, in := range inputs {
					payload, err := decoder.Decode(in)
					if err != nil || string(payload.Bytes) != text {
						t.Errorf("client %d: %v", i, err)
						return
					}
					defer payload.Release()
				}
			}
		})
	}
	clients.Wait()
	require.Zero(t, budget.InUse())
}

func TestAReleasedBufferIsNotReleasedTwice(t *testing.T) {
	decoder := newDecoder(1<<20, nil)
	in := Input{Body: packOnce(t, newGzip, event)}
	first, err := decoder.Decode(in)
	require.NoError(t, err)
	first.Release()
	first.Release()
	second, err := decoder.Decode(in)
	require.NoError(t, err)
	third, err := decoder.Decode(in)
	require.NoError(t, err)
	require.NotSame(t, &second.Bytes[0], &third.Bytes[0])
}

func TestInflateUndoesCompressionAndNothingElse(t *testing.T) {
	binary := "\x0a\x05\x00\xff\xfe\x01\x02" + strings.Repeat("\x00\x80", 300)
	for _, test := range []struct {
		name, encoding string
		body           []byte
		want           string
	}{
		{"plain bytes", "", []byte(binary), binary},
		{"a text that looks like base64 stays", "", []byte("aGVsbG8gd29ybGQh"), "aGVsbG8gd29ybGQh"},
		{"gzip by its bytes", "", packOnce(t, newGzip, binary), binary},
		{"gzip by the header", "gzip", packOnce(t, newGzip, binary), binary},
		{"a header that the bytes contradict", "gzip", []byte(`{"resourceSpans":[]}`), `{"resourceSpans":[]}`},
		{"deflate", "deflate", packOnce(t, newZlib, binary), binary},
		{"zstd", "zstd", packZstd(t, binary), binary},
		{"brotli", "br", packOnce(t, newBrotli, binary), binary},
		{"zlib by its bytes", "", packOnce(t, newZlib, binary), binary},
	} {
		t.Run(test.name, func(t *testing.T) {
			budget := memory.NewBudget(1 << 24)
			payload, err := newDecoder(1<<20, budget).Inflate(Input{Body: test.body, ContentEncoding: test.encoding})
			require.NoError(t, err)
			require.Equal(t, test.want, string(payload.Bytes))
			require.GreaterOrEqual(t, budget.InUse(), int64(len(test.want)), "what is held is accounted for")
			payload.Release()
			require.Zero(t, budget.InUse())
		})
	}
}

func TestInflateKeepsToTheLimitAndTheBudget(t *testing.T) {
	bomb := packOnce(t, newGzip, strings.Repeat("\x00", 1<<20))
	for _, test := range []struct {
		name          string
		limit, budget int64
		body          []byte
		code          events.Code
	}{
		{"nothing sent", 1 << 20, 1 << 20, nil, events.Invalid},
		{"broken gzip", 1 << 20, 1 << 20, []byte("\x1f\x8b\x08nonsense"), events.Invalid},
		{"a bomb", 1 << 16, 1 << 24, bomb, events.TooLarge},
		{"plain and too large", 1 << 10, 1 << 24, make([]byte, 1<<10+1), events.TooLarge},
		{"never room", 1 << 20, 1 << 10, make([]byte, 1<<11), events.TooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			budget := memory.NewBudget(test.budget)
			_, err := newDecoder(test.limit, budget).Inflate(Input{Body: test.body, ContentEncoding: ""})
			require.Error(t, err)
			require.Equal(t, test.code, events.CodeOf(err))
			require.Zero(t, budget.InUse())
		})
	}
}

// Sections 0 and 2.13: posthog-js 1.0 writes every character beyond the Basic Multilingual Plane as two surrogates of
// three bytes each, and half of such a character as one surrogate.
func TestSurrogatesThatStandForThemselvesAreJoinedOrReplaced(t *testing.T) {
	for sent, want := range map[string]struct {
		text     string
		replaced int
	}{
		"{\"a\":\"\xed\xa0\xbd\xed\xb8\x80\"}":             {`{"a":"😀"}`, 0},
		"{\"a\":\"\xed\xa0\xbd\"}":                         {`{"a":"�"}`, 1},
		"{\"a\":\"\xed\xb8\x80\xed\xa0\xbd\"}":             {`{"a":"��"}`, 2},
		"{\"a\":\"\xed\x9f\xbf\xed\xa0\xbd\xed\xb8\x80\"}": {`{"a":"퟿` + "\U0001f600\"}", 0},
	} {
		for _, in := range []Input{
			{Body: []byte(sent)},
			{Body: []byte("data=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(sent)))),
				ContentType: formType},
		} {
			budget := memory.NewBudget(1 << 20)
			payload, err := newDecoder(1<<20, budget).Decode(in)
			require.NoError(t, err, "%q", sent)
			require.Equal(t, want.text, string(payload.Bytes))
			require.Equal(t, want.replaced, payload.Replaced)
			payload.Release()
			require.Zero(t, budget.InUse())
		}
	}
}

func TestTheLimitIsThatOfTheRequestsConfiguration(t *testing.T) {
	narrow := &configs.View{}
	decoder := New(func(config *configs.View) int64 {
		if config == narrow {
			return 10
		}
		return 1000
	}, nil)
	require.EqualValues(t, 10, decoder.Limit(narrow))
	text := `{"event":"longer than ten bytes"}`
	for _, body := range [][]byte{[]byte(text), packOnce(t, newGzip, text)} {
		for range 2 {
			payload, err := decoder.Decode(Input{Body: body})
			require.NoError(t, err)
			require.Equal(t, text, string(payload.Bytes))
			payload.Release()
			_, err = decoder.Decode(Input{Body: body, Config: narrow})
			require.Equal(t, events.TooLarge, events.CodeOf(err))
			_, err = decoder.Inflate(Input{Body: body, Config: narrow})
			require.Equal(t, events.TooLarge, events.CodeOf(err))
		}
	}
}
