package posthog

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/memory"
)

// newDocument returns a document that has room for everything.
func newDocument() *document {
	s := newSession(newSpaces(nil), memory.NewBuffers(nil))
	s.document.limit = math.MaxInt
	return &s.document
}

func TestScanFindsTheShapeOfARequest(t *testing.T) {
	for _, test := range []struct {
		name, text        string
		objects           int
		enveloped, single bool
	}{
		{"array", `[{"event":"a"}, {"event":"b"}]`, 2, false, false},
		{"empty array", ` [ ] `, 0, false, false},
		{"envelope, token after the batch", `{"batch":[{"event":"a"}],"api_key":"k"}`, 1, true, false},
		{"empty batch", `{"api_key":"k","batch":[]}`, 0, true, false},
		{"single", `{"event":"a","properties":{}}`, 1, false, true},
		{"batch that is no array", `{"event":"a","batch":7}`, 1, false, true},
		{"of two batches the last counts", `{"batch":[{},{}],"batch":[{}]}`, 1, true, false},
		{"elements that are no objects", `[1,null,"x",[{}],{}]`, 5, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDocument()
			require.Nil(t, d.scan([]byte(test.text)))
			require.Len(t, d.objects, test.objects)
			require.Equal(t, test.enveloped, d.enveloped)
			require.Equal(t, test.single, d.single)
		})
	}
}

func TestScanSaysWhereTheTextStopsBeingJSON(t *testing.T) {
	for text, want := range map[string]string{
		``:                    "unexpected end of JSON at byte 0",
		`  `:                  "unexpected end of JSON at byte 2",
		`{"event":"a"`:        "unexpected end of JSON at byte 12",
		`{"event":"a}`:        "unexpected end of JSON at byte 12",
		`{"event":"a\`:        "unexpected end of JSON at byte 12",
		`[{"event":1},]`:      "expected a value at byte 13",
		`{"event":"a",}`:      "expected a string as key at byte 13",
		`{"event" "a"}`:       "expected : after key at byte 9",
		`{"a":1 "b":2}`:       "expected , or } in object at byte 7",
		`[1 2]`:               "expected , or ] in array at byte 3",
		`[[1 2]]`:             "expected , or ] in array at byte 4",
		`{"a":{"b":1 "c":2}}`: "expected , or } in object at byte 12",
		`[01]`:                "expected , or ] in array at byte 2",
		`[1.]`:                "invalid number at byte 3",
		`[1e]`:                "invalid number at byte 3",
		`[-]`:                 "invalid number at byte 2",
		`[tru]`:               "expected a value at byte 1",
		`["\x"]`:              "invalid escape in string at byte 3",
		`["\u12g4"]`:          "invalid \\u escape at byte 4",
		`{} {}`:               "unexpected text after the JSON value at byte 3",
		`7`:                   "expected an event, an array of events or a batch at byte 0",
		`'a'`:                 "expected a value at byte 0",
	} {
		d := newDocument()
		err := d.scan([]byte(text))
		require.NotNil(t, err, text)
		require.Equal(t, want, err.Error(), text)
		require.False(t, d.Repairable, text)
	}
}

func TestTheScanNotesWhichEventsAreNestedTooDeep(t *testing.T) {
	properties := func(n int) string {
		return `{"properties":` + strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) + "}"
	}
	fits, deep := properties(jsonscan.MaxDepth-2), properties(jsonscan.MaxDepth-1)
	for text, want := range map[string][]bool{
		`[` + fits + `]`:                           {false},
		`[` + deep + `,` + fits + `]`:              {true, false},
		`[` + fits + `,` + deep + `,` + fits + `]`: {false, true, false},
		`{"batch":[` + properties(jsonscan.MaxDepth-3) + `,` + properties(1e5) + `]}`: {false, true},
		`{"batch":[` + properties(jsonscan.MaxDepth-3) + `],"x":` + deep + `}`:        {false},
		properties(jsonscan.MaxDepth - 1):                                             {false},
		properties(jsonscan.MaxDepth):                                                 {true},
	} {
		d := newDocument()
		require.Nil(t, d.scan([]byte(text)))
		var got []bool
		for _, found := range d.objects {
			got = append(got, found.deep)
		}
		require.Equal(t, want, got)
	}
	d := newDocument()
	require.ErrorContains(t, d.scan([]byte(strings.Repeat(`{"a":[`, 10_000))), "unexpected end of JSON at byte 60000")
}

func TestScanReadsKeysAsWhatTheyMean(t *testing.T) {
	d := newDocument()
	text := []byte(`{"\u0065vent":"a","properties":{"distinct\u005fid":"u"}}`)
	require.Nil(t, d.scan(text))
	require.Equal(t, `"a"`, string(d.objects[0].name.In(text)))
	require.Equal(t, `"u"`, string(d.objects[0].propDistinctID.In(text)))
}

// FuzzScan compares the scanner with encoding/json. A text that the scanner accepts must be valid there and mean the
// same. A text that encoding/json accepts must pass here, except for its depth and for the shape of a request. Any
// other text must fail, unless the two repairs make JSON of it.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{"api_key":"k","batch":[{"event":"a","distinct_id":1,"properties":` +
			`{"a":[{},[]," \"\\ \u00e9"],"b":-0.5e+3}}],` +
			`"sent_at":"x"}`,
		`[{"event":"a","uuid":null,"properties":{"token":"t","distinct_id":"d","$cookieless_mode":true}}]`,
		`{"$token":"t","$distinct_id":"d","$set":{},"$set_once":{"a":1},"timestamp":"","offset":3}`,
		`[{"a":NaN,"b":"\ud83d","c":-Infinity}]`, "[\"\\ud83d\\ude00\", 1, \"\x7f\"]",
		`{"batch":[],"batch":3,"event":"e"}`,
		`{"\u0065vent":"a","historical_migration":true,"sentAt":"y","token":"z"}`, `[[[[]]],{"a":{"b":{}}}]`, `"`, `[`,
		`{"`, `[1,]`, `nul`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !utf8.Valid(data) {
			return // decode lets only UTF-8 through
		}
		d := newDocument()
		err := d.scan(data)
		if d.Repairable {
			data, _ = jsonscan.Repair(data)
			if err = d.scan(data); d.Repairable {
				t.Fatalf("%q needs repair a second time", data)
			}
		}
		if d.Deep > 0 {
			return // what is nested too deep is passed over, and not kept
		}
		valid := json.Valid(data)
		if err != nil {
			if valid && !strings.Contains(err.Error(), "nested deeper") &&
				!strings.Contains(err.Error(), "expected an event") {
				t.Fatalf("%q is JSON, but: %v", data, err)
			}
			return
		}
		if !valid {
			t.Fatalf("%q is not JSON, but passed", data)
		}
		requireSameMeaning(t, data, d)
	})
}

// requireSameMeaning compares every value that the scan has found with the value that encoding/json finds.
func requireSameMeaning(t *testing.T, data []byte, d *document) {
	var elements []json.RawMessage
	var top map[string]json.RawMessage
	if bytes.TrimSpace(data)[0] == '[' {
		require.NoError(t, json.Unmarshal(data, &elements))
	} else {
		require.NoError(t, json.Unmarshal(data, &top))
		if batch := top["batch"]; len(batch) > 0 && batch[0] == '[' {
			require.True(t, d.enveloped)
			require.NoError(t, json.Unmarshal(batch, &elements))
			require.Equal(t, string(top["api_key"]), string(d.envelope.apiKey.In(data)))
			require.Equal(t, string(top["token"]), string(d.envelope.token.In(data)))
			require.Equal(t, string(top["sent_at"]), string(d.envelope.sentAt.In(data)))
			require.Equal(t, string(top["sentAt"]), string(d.envelope.sentAtAlias.In(data)))
			require.Equal(t, string(top["historical_migration"]), string(d.envelope.historical.In(data)))
		} else {
			require.True(t, d.single)
			elements = []json.RawMessage{data}
		}
	}
	require.Len(t, d.objects, len(elements))
	for i, element := range elements {
		found := d.objects[i]
		element = bytes.TrimSpace(element)
		require.Equal(t, element[0] == '{', found.isObject)
		if !found.isObject {
			continue
		}
		var fields map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(element, &fields))
		for key, at := range map[string]jsonscan.Span{
			"event": found.name, "uuid": found.uuid, "timestamp": found.timestamp, "offset": found.offset,
			"token": found.token, "$token": found.dollarToken, "api_key": found.apiKey, "distinct_id": found.distinctID,
			"$distinct_id": found.dollarDistinctID, "properties": found.properties, "$set": found.set,
			"$set_once": found.setOnce,
		} {
			require.Equal(t, string(fields[key]), string(at.In(data)), key)
		}
		var properties map[string]json.RawMessage
		if raw := fields["properties"]; len(raw) > 0 && raw[0] == '{' {
			require.NoError(t, json.Unmarshal(raw, &properties))
		}
		for key, at := range map[string]jsonscan.Span{
			"token": found.propToken, "distinct_id": found.propDistinctID, "$cookieless_mode": found.cookieless,
			"$ignore_sent_at": found.ignoreSentAt, "capture_internal": found.internal,
		} {
			require.Equal(t, string(properties[key]), string(at.In(data)), key)
		}
		if name := fields["event"]; len(name) > 0 && name[0] == '"' {
			var want string
			require.NoError(t, json.Unmarshal(name, &want))
			require.Equal(t, want, jsonscan.Text(found.name.In(data)))
		}
	}
}
