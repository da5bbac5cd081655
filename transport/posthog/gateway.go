package posthog

import (
	"bytes"

	"github.com/opencapture/capture/modules/jsonscan"
)

// GatewayPrefix begins the names of the properties by which PostHog's AI gateway vouches for an event, after it has
// signed for them. Whoever else sends them makes them up.
const GatewayPrefix = "$ai_gateway"

func isGateway(key []byte) bool {
	return len(key) >= len(GatewayPrefix) && string(key[:len(GatewayPrefix)]) == GatewayPrefix
}

// MaybeGateway is isGateway for a key as member returns it, which leaves the escapes in a very long one.
func MaybeGateway(key []byte) bool {
	return isGateway(key) || len(key) > jsonscan.MaxEscapedKey && bytes.IndexByte(key, '\\') >= 0
}

// AppendWithoutGateway appends properties that have been scanned, without those of the AI gateway. dst may be the
// beginning of the properties' own memory: what is left is never ahead of what is read.
func AppendWithoutGateway(dst, properties []byte) []byte {
	return jsonscan.AppendWithout(dst, properties, isGateway)
}

// StripGateway returns an event's properties, a valid JSON object, without those of the AI gateway. Where there are
// none it returns what it was given, and otherwise a copy that is shorter.
func StripGateway(properties []byte) []byte {
	for m := jsonscan.MembersOf(properties); m.Next(); {
		if isGateway(m.Key) {
			return AppendWithoutGateway(make([]byte, 0, len(properties)), properties)
		}
	}
	return properties
}
