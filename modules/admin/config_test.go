package admin

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
)

func TestTheDefaultsAreValid(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	require.Equal(t, "127.0.0.1:8001", DefaultConfig().Listen)
	require.Equal(t, DefaultConfig().StopTimeout, DefaultConfig().StopBudget())
}

func TestEveryFaultOfTheSectionIsReported(t *testing.T) {
	err := Config{Listen: "8001", Token: "a b", Hosts: []string{"a", "b:1"}, ReadTimeout: -time.Second, WriteTimeout: 1,
		IdleTimeout: 1}.Validate()
	require.EqualError(t, err, "listen: must be host:port, such as 127.0.0.1:8001, got \"8001\"\n"+
		"token: must be visible ASCII without spaces, as a header has to hold it: look for a line break at its end\n"+
		"hosts: must be names such as capture.internal, without scheme, port and path, got \"b:1\"\n"+
		"read_timeout: must be positive, got -1s\nstop_timeout: must be positive, got 0s")
	for _, listen := range []string{"", ":http", "localhost:", "localhost:65536", "*:8001"} {
		cfg := DefaultConfig()
		cfg.Listen = listen
		require.ErrorContains(t, cfg.Validate(), "listen: must be host:port", listen)
	}
	for _, listen := range []string{":0", "[::1]:8001", "admin.internal:9"} {
		cfg := DefaultConfig()
		cfg.Listen = listen
		require.NoError(t, cfg.Validate())
	}
}

func TestATokenIsWhatAHeaderCanHold(t *testing.T) {
	for token, valid := range map[string]bool{
		"s3cret": true, "a-b_c~d+e/f=": true, "it's \"quoted\"": false, "secret\n": false, "\tsecret": false,
		"geheim-ü": false, "\x7f": false, " ": false,
	} {
		cfg := DefaultConfig()
		cfg.Token = configs.Secret(token)
		err := cfg.Validate()
		require.Equal(t, valid, err == nil, "%q: %v", token, err)
		if !valid {
			require.NotContains(t, err.Error(), token+"x")
		}
	}
}

func TestHostsAreNames(t *testing.T) {
	for host, valid := range map[string]bool{
		"capture": true, "Capture.Internal.": true, "pod-0.capture_svc": true, "10.1.2.3": true,
		"": false, "capture:8001": false, "http://capture": false, "capture/": false, "*.internal": false,
		"[::1]": false, "a b": false, "ü": false,
	} {
		cfg := DefaultConfig()
		cfg.Hosts = []string{host}
		err := cfg.Validate()
		require.Equal(t, valid, err == nil, "%q: %v", host, err)
	}
}
