package configs_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
)

func TestSecretNeverShowsItself(t *testing.T) {
	secret := configs.Secret("left-right-left")
	encoded, err := json.Marshal(map[string]any{"safe": secret})
	require.NoError(t, err)
	shown := fmt.Sprintf("%s %v %+v %#v %q %x", secret, secret, struct{ S configs.Secret }{secret}, secret, secret,
		secret) + string(encoded)
	require.NotContains(t, shown, "left")
	require.NotContains(t, shown, fmt.Sprintf("%x", "left"))
	require.Contains(t, shown, "******")
	require.Equal(t, "left-right-left", secret.Reveal())
	require.Empty(t, configs.Secret("").String(), "an unset secret looks unset")
}

func TestByteSizeReadsNumbersAndUnits(t *testing.T) {
	for text, want := range map[string]configs.ByteSize{
		"0": 0, "512": 512, "512b": 512, "1kb": 1000, "1KiB": 1024, "20 MiB": 20 * configs.MiB,
		"1.5GiB": 1536 * configs.MiB,
		"2GB":    2e9, "1TiB": 1024 * configs.GiB, "-1": -1, "9223372036854775807": 1<<63 - 1,
		"4.1kb": 4100, "1.005KB": 1005,
		"\t7\n": 7,
	} {
		var got configs.ByteSize
		require.NoError(t, got.UnmarshalText([]byte(text)), text)
		require.Equal(t, want, got, text)
	}
}

func TestByteSizeRefusesWhatIsNoSize(t *testing.T) {
	for _, text := range []string{"", "MiB", "x", "1.5", "0.3b", "1 KiB KiB", "9223372036854775808",
		"9007199254740992KiB", "NaN", "Inf", "1e400", "1/2KiB", "0x10"} {
		var got configs.ByteSize = 7
		require.Error(t, got.UnmarshalText([]byte(text)), text)
		require.EqualValues(t, 7, got, "a refused text changes nothing: %q", text)
	}
}

func FuzzByteSizeReadsWhatItWrites(f *testing.F) {
	for _, n := range []int64{0, 1, -1, 1000, 1024, 20 << 20, 1<<63 - 1, -1 << 63} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		text, err := configs.ByteSize(n).MarshalText()
		require.NoError(t, err)
		var got configs.ByteSize
		require.NoError(t, got.UnmarshalText(text), "%s", text)
		require.EqualValues(t, n, got)
	})
}

func TestASizeIsShownToPeopleInOneUnit(t *testing.T) {
	for size, want := range map[configs.ByteSize]string{
		0: "0B", 1023: "1023B", 1024: "1KiB", 1536: "1.5KiB", configs.MiB - 1: "1024KiB", 20 * configs.MiB: "20MiB",
		10*configs.GiB + 300*configs.MiB: "10.3GiB", 5000 * configs.GiB: "5000GiB",
	} {
		require.Equal(t, want, size.Approx())
	}
}

func TestNearestIsAMisspellingAndNoOtherWord(t *testing.T) {
	known := []string{"status", "verify", "drain", "move", "drop"}
	for word, want := range map[string]string{
		"stauts": "status", "drian": "drain", "veryfy": "verify", "mov": "move", "empty": "", "": "",
	} {
		require.Equal(t, want, configs.Nearest(word, known), word)
	}
}
