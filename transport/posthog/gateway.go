package posthog

import "bytes"

// gatewayPrefix begins the properties that only PostHog's own AI gateway may set, after it has signed for them. Whoever else
// sends them makes them up.
const gatewayPrefix = "$ai_gateway"

func isGateway(key []byte) bool {
	return len(key) >= len(gatewayPrefix) && string(key[:len(gatewayPrefix)]) == gatewayPrefix
}

// maybeGateway is isGateway for a key as member returns it, which leaves the escapes in a very long one.
func maybeGateway(key []byte) bool {
	return isGateway(key) || len(key) > maxEscapedKey && bytes.IndexByte(key, '\\') >= 0
}

// StripGateway appends the properties, a JSON object that has been scanned, without those of PostHog's AI gateway. dst may be
// the beginning of the properties' own memory.
func StripGateway(dst, properties []byte) []byte { return without(dst, properties, isGateway) }
