// Package jsonscan reads and changes JSON without making anything of it: a text is scanned once, values stay the bytes
// that the client sent, and there are no maps. It is a leaf, for the protocols and for whoever judges events or changes
// them.
//
// Most callers want one property of an object that is valid already, such as an event's properties:
//
//	browser := jsonscan.Get(event.Raw.Properties, "$browser")               // nil: there is none
//	event.Raw.Properties, err = jsonscan.AppendSet(nil, event.Raw.Properties, "$plan", []byte(`"pro"`))
//	event.Raw.Properties = jsonscan.AppendDelete(nil, event.Raw.Properties, "$ip")
//
// Of two equal keys the last counts. Text is what a string says, Repair mends what real SDKs write in the place of
// JSON, and Members goes through an object. A Scanner is what a parser of a larger format embeds, as transport/posthog
// does.
//
// The scanner accepts what encoding/json accepts, up to MaxDepth levels deep. Texts must be valid UTF-8.
package jsonscan
