// Package jsonscan reads and changes JSON without decoding it into Go values. It scans a text once, makes no maps, and
// leaves values as the bytes that the client sent. It imports no other package of the service. It is for the protocols,
// and for the stages and plugins that judge or change events.
//
// Most callers want one property of an object that is valid already, such as an event's properties:
//
//	browser := jsonscan.Get(event.Raw.Properties, "$browser")               // nil: there is none
//	event.Raw.Properties, err = jsonscan.AppendSet(nil, event.Raw.Properties, "$plan", []byte(`"pro"`))
//	event.Raw.Properties = jsonscan.AppendDelete(nil, event.Raw.Properties, "$ip")
//
// Of two equal keys the last counts. Text returns the text of a string that was scanned, Unquote that of one that was
// not, and Members goes through an object. A parser of a larger format embeds a Scanner, as transport/posthog does.
//
// The scanner accepts what encoding/json accepts, up to MaxDepth levels deep. Texts must be valid UTF-8. Real clients
// write other things in the place of JSON: NaN, control characters, halves of characters. Repair mends them in one pass
// over a text that the scanner has refused, and Survey says first how large the mended copy will be.
package jsonscan
