// Package otlp takes what OpenTelemetry's exporters send over HTTP: spans about AI become PostHog's AI events, log records become
// events of the stream of logs.
//
//	POST /i/v0/ai/otel, /i/v0/ai/otel/v1/traces   traces; the second is what exporters make of the first as their endpoint
//	POST /i/v1/logs, /i/v0/ai/otel/v1/logs        logs
//
// Bodies are protobuf or JSON, compressed or not; as everywhere, bytes decide where a header contradicts them. The token
// comes in the Authorization header (Bearer), for logs in the query (token) as well. What a request may become in memory is
// counted before it is decoded, and lists and objects nest a limited number of levels. Answers are OTLP's, in the encoding
// of the request: empty for success, with partial success where some of the spans or records were too large, a
// google.rpc.Status for errors. Used up quota is a 400, because OTLP's clients would send again upon a 429. A 429, for a
// rate that is too high, and a 503 come with Retry-After.
//
// # Spans
//
// A span is about AI if one of its attributes begins with gen_ai., ai., eve., pydantic_ai., traceloop., llm., openinference. or
// langwatch.; all others are ignored and counted (spans_ignored_total), and are no events. The event is
//
//	$ai_generation  gen_ai.operation.name chat, text_completion, generate_content; llm.request.type chat, completion;
//	                openinference.span.kind LLM; ai.operationId ...doGenerate, ...doStream, which is asked before the others
//	$ai_embedding   gen_ai.operation.name embeddings; llm.request.type embedding(s); openinference.span.kind EMBEDDING;
//	                ai.operationId ai.embed.doEmbed, ai.embedMany.doEmbed
//	$ai_trace       any other span without a parent
//	$ai_span        any other
//
// and its properties are
//
//	$ai_trace_id, $ai_span_id, $ai_parent_id   the ids, as hexadecimal digits
//	$ai_ingestion_source                       "otel"
//	$ai_span_name, $otel_span_name             the name
//	$ai_latency                                the duration in seconds
//	$otel_start_time_unix_nano, $otel_end_time_unix_nano   as text
//	$ai_is_error, $ai_error                    where the status is an error: true, and the last exception, else the status' message
//	$ai_model, $ai_provider, $ai_input_tokens, $ai_output_tokens, $ai_cache_read_input_tokens, $ai_cache_creation_input_tokens,
//	$ai_base_url, $ai_session_id               the first of their attributes (see mapped)
//	$ai_input, $ai_output_choices              the messages (see messages), out of attributes or the span's events; JSON within
//	                                           a string becomes that JSON
//	$lib, $lib_version, $geoip_disable         "posthog-otel", the instrumentation's version, true
//	everything else                            the span's and the resource's attributes under their own names, the span's first,
//	                                           without the resource's host., process., os. and telemetry.
//
// An attribute that has the name of one of these properties counts before what would be made of others, but for the ids, the
// times and the source. Properties that claim to come from PostHog's AI gateway ($ai_gateway...) are left out, as nothing proves
// them. PostHog's pipeline makes the same properties of the attributes, and more, by the library that wrote them: it takes over
// where $ai_ingestion_source is "otel", and finds the attributes that it looks for.
//
// The user is named by ai.telemetry.metadata.posthog_distinct_id, ai.settings.context.posthog_distinct_id, posthog.distinct_id,
// user.id or enduser.id of the span, else by the last three of the resource; where nobody is, the trace id stands for him and no
// person is made. An event happened when its span began. Its UUID is made of the trace's and the span's id, so that it is the same
// when the request is sent again.
//
// # Log records
//
// A record becomes an event $log with the properties body, severity_text, severity_number, service_name, event_name, trace_id,
// span_id, trace_flags, instrumentation_scope (name@version), observed_timestamp, attributes, resource_attributes, $session_id and
// $window_id, of which those that are not known are left out. The user is named by posthogDistinctId, posthog.distinct_id, user.id
// or enduser.id, the session by sessionId, session.id or $session_id, of the record or else of its resource; a record without a
// user has its trace id for one, or its own. Logs make no persons. The UUID is made of the token and all that the record says, and
// for equal records in one request of their order.
package otlp
