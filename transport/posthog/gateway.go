package posthog

import (
	"bytes"
	"strings"
)

// GatewayPrefix begins the names of the properties by which PostHog's AI gateway vouches for an event. From anybody else they
// are a claim that nothing proves.
const GatewayPrefix = "$ai_gateway"

// StripGateway returns an event's properties, a valid JSON object, without those of the AI gateway. Where there are none it
// returns what it was given, and otherwise a copy that is shorter.
func StripGateway(properties []byte) []byte {
	// An escape may stand for any letter of the prefix.
	if !bytes.Contains(properties, []byte(GatewayPrefix)) && !bytes.Contains(properties, []byte(`\u`)) {
		return properties
	}
	found := false
	claims := func(key []byte) bool { return strings.HasPrefix(text(key), GatewayPrefix) }
	fault := members(properties, func(key, _ []byte) { found = found || claims(key) })
	if fault != nil || !found {
		return properties
	}
	kept := append(make([]byte, 0, len(properties)), '{')
	_ = members(properties, func(key, value []byte) {
		if claims(key) {
			return
		}
		if len(kept) > 1 {
			kept = append(kept, ',')
		}
		kept = append(append(append(kept, key...), ':'), value...)
	})
	return append(kept, '}')
}
