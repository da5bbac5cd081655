//go:build !v1.5

package main

import (
	"fmt"
	"time"

	"github.com/posthog/posthog-go"
)

// configure sets what only this version can do.
func configure(config *posthog.Config, mode, compression string) error {
	modes := map[string]posthog.CaptureMode{"v0": posthog.CaptureModeLegacy, "v1": posthog.CaptureModeAnalyticsV1}
	compressions := map[string]posthog.CompressionMode{
		"": posthog.CompressionNone, "gzip": posthog.CompressionGzip, "zstd": posthog.CompressionZstd,
		"deflate": posthog.CompressionDeflate, "br": posthog.CompressionBrotli,
	}
	var knownMode, knownCompression bool
	config.CaptureMode, knownMode = modes[mode]
	config.Compression, knownCompression = compressions[compression]
	if !knownMode || !knownCompression {
		return fmt.Errorf("the SDK has no mode %q with compression %q", mode, compression)
	}
	return nil
}

func newException(user string, properties posthog.Properties) posthog.Message {
	exception := posthog.NewDefaultException(time.Now(), user, "an error", "of the script")
	exception.Properties = properties
	return exception
}
