package posthog

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/jsonscan"
)

func TestStripGatewayRemovesWhatNothingProves(t *testing.T) {
	for properties, want := range map[string]string{
		`{}`:                            `{}`,
		`{"a":1,"b":"$ai_gateway"}`:     `{"a":1,"b":"$ai_gateway"}`,
		`{"$ai_gateway_verified":true}`: `{}`,
		`{"$ai_gateway":{"a":[1,{"b":"}"}]},"b":2}`:                        `{"b":2}`,
		` { "a" : 1 , "$ai_gateway_relay" : true , "b" : [ 2 ] } `:         `{"a" : 1,"b" : [ 2 ]}`,
		`{"\u0024ai_gateway_verified":true,"\u0061":1}`:                    `{"\u0061":1}`,
		`{"` + escaped("$ai_gateway_request_id_and_more") + `":"x","a":1}`: `{"a":1}`,
		`{"a":{"$ai_gateway_verified":true}}`:                              `{"a":{"$ai_gateway_verified":true}}`,
		`{"a":"\u0041"}`:                                                   `{"a":"\u0041"}`,
	} {
		got := StripGateway([]byte(properties))
		require.Equal(t, want, string(got))
		require.True(t, json.Valid(got))
	}
}

// escaped writes every character as an escape.
func escaped(text string) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for i := range len(text) {
		out.WriteString(`\u00`)
		out.WriteByte(digits[text[i]>>4])
		out.WriteByte(digits[text[i]&15])
	}
	return out.String()
}

func FuzzStripGateway(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, `{"$ai_gateway":[1,2],"b":{"c":"d"}}`, `{"\u0024ai_gateway":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after map[string]json.RawMessage
		if !utf8.Valid(data) || !jsonscan.Valid(data) || json.Unmarshal(data, &before) != nil || before == nil {
			return
		}
		require.NoError(t, json.Unmarshal(StripGateway(data), &after))
		for key, value := range before {
			if strings.HasPrefix(key, GatewayPrefix) {
				require.NotContains(t, after, key)
				continue
			}
			require.Equal(t, string(value), string(after[key]), key)
		}
	})
}
