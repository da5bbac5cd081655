// Package ai serves POST /i/v0/ai, on which PostHog's SDKs send one AI event with large properties as
// multipart/form-data, so that nothing of it has to be escaped into a string of a batch.
//
//	part "event"             first; JSON: event, uuid, distinct_id, and as they are known timestamp, sent_at, $set, $set_once
//	part "event.properties"  optional; the event's properties, a JSON object: the event itself must have none then
//
// The token comes in the Authorization header (Bearer). The body as a whole may be compressed; its parts may not. The
// event is one of the six AI events, has a UUID of the client's, and names its model in $ai_model. Properties that
// claim to come from PostHog's AI gateway ($ai_gateway...) are taken out, as nothing proves them. The time is computed
// by v0's rules, with the client's clock corrected where sent_at says what it showed.
//
// The answer to an event that is safe, or that policy did not want, lists the parts that were read:
//
//	{"accepted_parts":[{"name":"event","length":93,"content-type":"application/json"}]}
//
// Faults are answered as v0 answers them: text, 400, 401 or 413, and 429 or 503 with Retry-After where trying again is
// right. Nothing of the body is copied on the way: an event is made of slices of it.
package ai
