//go:build v1.5

package main

import (
	"fmt"

	"github.com/posthog/posthog-go"
)

// configure sets nothing: this version has one mode.
func configure(_ *posthog.Config, mode, compression string) error {
	if mode != "v0" || compression != "" {
		return fmt.Errorf("the SDK has no mode %q with compression %q", mode, compression)
	}
	return nil
}

// newException is a capture of that name, as this version has nothing else.
func newException(user string, properties posthog.Properties) posthog.Message {
	properties.Set("$exception_message", "an error").Set("$exception_type", "error")
	return posthog.Capture{DistinctId: user, Event: "$exception", Properties: properties}
}
