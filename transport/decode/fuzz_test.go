package decode

import (
	"encoding/base64"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
)

func FuzzDecode(f *testing.F) {
	const limit = 1 << 18
	std := base64.StdEncoding.EncodeToString
	for _, request := range recordedRequests(f) {
		if in := request.input(f); len(in.Body) < 2000 {
			f.Add(in.Body, in.QueryData, in.QueryHint, in.ContentType, in.ContentEncoding)
		}
	}
	for encoding, body := range map[string][]byte{
		"gzip":    packOnce(f, newGzip, std(packOnce(f, newGzip, event))),
		"zstd":    pack(f, newZstdStream, event),
		"br":      packOnce(f, newBrotli, event),
		"deflate": packOnce(f, newDeflate, event),
		"lz64":    []byte(lz(event)),
		"base64":  []byte("\ufeff" + event),
	} {
		f.Add(body, "", encoding, formType, encoding)
		f.Add([]byte("data="+std(body)), "", encoding, formType, "")
		f.Add([]byte(nil), std(body), encoding, "", "")
		f.Add([]byte(latin1(string(body))), "", encoding, "", encoding+", gzip")
		f.Add(packOnce(f, newGzip, string(body)+"\x00"), "", "", "", encoding+", gzip")
		f.Add([]byte(multipartForm("data", string(body), "compression", encoding)), "", "", "", "")
	}
	for _, text := range []string{quote(event), quote(quote("data=" + event)), utf16Of(event, true),
		"\xff\xfe" + event} {
		f.Add([]byte(text), text, "", "text/plain; charset=utf-16", "")
	}
	for _, charset := range []string{"latin1", "shift_jis", "gb18030", "iso-2022-jp", "utf-16be", "x-user-defined"} {
		f.Add([]byte("{\"a\":\"\xe4\x1b$B\"}"), "", "", "text/plain; charset="+charset, "")
	}
	budget := memory.NewBudget(64 << 20)
	decoder := newDecoder(limit, budget)
	f.Fuzz(func(t *testing.T, body []byte, data, hint, contentType, contentEncoding string) {
		sent := string(body)
		payload, err := decoder.Decode(Input{Body: body, QueryData: data, QueryHint: hint, ContentType: contentType,
			ContentEncoding: contentEncoding})
		require.Equal(t, sent, string(body))
		if err != nil {
			require.Nil(t, payload)
			var coded *events.Error
			require.ErrorAs(t, err, &coded)
			require.Contains(t, []events.Code{events.Invalid, events.TooLarge}, coded.Code)
		} else {
			require.LessOrEqual(t, len(payload.Bytes), limit)
			require.Equal(t, utf8.Valid(payload.Bytes), payload.Malformed == nil)
			require.GreaterOrEqual(t, budget.InUse(), int64(len(payload.Bytes)))
			payload.Release()
			payload.Release()
		}
		require.Zero(t, budget.InUse())
	})
}
