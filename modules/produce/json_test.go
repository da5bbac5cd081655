package produce_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/produce"
)

func TestAValueIsShownAsJSONThatProgramsCanRead(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		`{"a": 1}`:            `{"a": 1}`,
		`17`:                  `17`,
		``:                    `""`,
		"bell\a \x7f\u202e\"": "\"bell\\u0007 \x7f\u202e\\\"\"",
		"🎉":                   `"🎉"`,
		"\xff":                ``,
		"{\"a\":\"\xff\"}":    ``,
	} {
		got := produce.JSONOf([]byte(value))
		require.Equal(t, want, string(got), "%q", value)
		require.True(t, want == "" || json.Valid(got))
	}
}
