package posthog

// gatewayPrefix begins the properties that only PostHog's own AI gateway may set, after it has signed for them. Whoever else
// sends them makes them up.
const gatewayPrefix = "$ai_gateway"

func isGateway(key []byte) bool {
	return len(key) >= len(gatewayPrefix) && string(key[:len(gatewayPrefix)]) == gatewayPrefix
}

// StripGateway appends the properties, a JSON object that has been scanned, without those of PostHog's AI gateway.
func StripGateway(dst, properties []byte) []byte { return without(dst, properties, isGateway) }
