// Package ai serves POST /i/v0/ai. On this path PostHog's SDKs send one AI event with large properties as
// multipart/form-data, so that the properties need not be escaped into a string of a batch.
//
//	part "event"             first; JSON: event, uuid, distinct_id, and if they are known timestamp, sent_at, $set and
//	                         $set_once
//	part "event.properties"  optional; the event's properties, a JSON object: the event itself must have none then
//
// The token comes in the Authorization header (Bearer). The body as a whole may be compressed; its parts may not. The
// event is one of the six AI events, has a UUID of the client's, and names its model in $ai_model. Properties that
// claim to come from PostHog's AI gateway ($ai_gateway...) are taken out, because nothing proves the claim. The time is
// computed by v0's rules. If the event has a sent_at, the client's clock is corrected by it.
//
// The answer to an event that is safe, or that policy has dropped, lists the parts that were read:
//
//	{"accepted_parts":[{"name":"event","length":93,"content-type":"application/json"}]}
//
// Faults are answered as v0 answers them: in text, with 400, 401 or 413, and with 429 or 503 and Retry-After where the
// client should try again. The event is made of slices of the body. Only what is mended or taken out costs a copy.
package ai
