package events

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Section 2.8 of the protocol.
func TestCheckTokenNamesWhatIsWrong(t *testing.T) {
	for token, want := range map[string][2]string{
		"phc_test": {"phc_test", ""}, "  phc_test\n": {"phc_test", ""}, "": {"", "empty"}, " \t": {"", "empty"},
		strings.Repeat("x", 64): {strings.Repeat("x", 64), ""}, strings.Repeat("x", 65): {"", "too_long"},
		"phc_ü": {"", "not_ascii"}, "phx_secret": {"", "personal_api_key"}, "a\x00b": {"", "null_byte"},
	} {
		trimmed, fault := CheckToken(token)
		require.Equal(t, want, [2]string{trimmed, fault}, "%q", token)
	}
}
