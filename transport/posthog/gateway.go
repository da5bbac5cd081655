package posthog

import (
	"bytes"

	"github.com/opencapture/capture/modules/jsonscan"
)

// GatewayPrefix begins the names of the properties by which PostHog's AI gateway vouches for an event, after it has
// signed for them. Any other sender makes them up.
const GatewayPrefix = "$ai_gateway"

func isGateway(key []byte) bool {
	return len(key) >= len(GatewayPrefix) && string(key[:len(GatewayPrefix)]) == GatewayPrefix
}

// MaybeGateway reports whether a key that Scanner.Member has returned may be one of the AI gateway's. Member leaves the
// escapes in a very long key, so each of those may be one.
func MaybeGateway(key []byte) bool {
	return isGateway(key) || len(key) > jsonscan.MaxEscapedKey && bytes.IndexByte(key, '\\') >= 0
}

// AppendWithoutGateway appends properties that have been scanned, without those of the AI gateway. dst may be the
// beginning of the properties' own memory, because no byte is written before it has been read.
func AppendWithoutGateway(dst, properties []byte) []byte {
	return jsonscan.AppendWithout(dst, properties, isGateway)
}

// StripGateway returns an event's properties, a valid JSON object, without those of the AI gateway. If there are none,
// it returns the properties as they are, else a shorter copy.
func StripGateway(properties []byte) []byte {
	for m := jsonscan.MembersOf(properties); m.Next(); {
		if isGateway(m.Key) {
			return AppendWithoutGateway(make([]byte, 0, len(properties)), properties)
		}
	}
	return properties
}
