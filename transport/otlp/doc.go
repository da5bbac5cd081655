// Package otlp takes what OpenTelemetry's exporters send over HTTP. Spans about AI become PostHog's AI events, and log
// records become events of the stream of logs.
//
//	POST /i/v0/ai/otel, /i/v0/ai/otel/v1/traces   traces; of the first path exporters make the second
//	POST /i/v1/logs, /i/v0/ai/otel/v1/logs        logs
//
// Bodies are protobuf or JSON, compressed or not. As everywhere, bytes decide where a header contradicts them. Several
// requests in one body, as in JSON Lines, are one. What is no UTF-8 in a text becomes U+FFFD. A value in JSON that its
// field cannot hold costs only itself: it becomes what it plainly means, or is left out. The project is told of both,
// as json_repaired. The token comes in the Authorization header, or in the query (token): for logs always, for spans if
// the header is of another scheme. Answers are OTLP's, in the encoding that the content type names: empty for success,
// and a google.rpc.Status for errors. A partial success tells of spans or records that were too large. With 0 rejected
// it is a warning: that nothing was kept, or that a resource was shortened. A request for another path is a 400. A
// used-up quota is a 400, because OTLP's clients would send again upon a 429. A 429, for a rate that is too high, and a
// 503 come with Retry-After.
//
// # What a request costs
//
// A request costs what it weighs: twice as much input is at most twice as much work. Its values are counted before they
// are decoded, and lists and objects nest a limited number of levels. Every event repeats its resource, so a resource
// is shortened to a limited size and written once, and its events copy its bytes. What all events come to is limited as
// well, both as such and in proportion to the request. Where they come to more, the whole request is a 413: the client
// has to send smaller batches. A value that is too large is given up where it crosses the limit. A request has a
// limited time for all this, and is a 503 if it takes longer, so that it is sent again when the service has less to do.
//
// # Spans
//
// A span is about AI if one of its attributes begins with gen_ai., ai., eve., pydantic_ai., traceloop., llm.,
// openinference. or langwatch. All other spans are ignored: they are counted (spans_ignored_total) and become no
// events. The event is
//
//	$ai_generation  gen_ai.operation.name chat, text_completion, generate_content; llm.request.type chat, completion;
//	                openinference.span.kind LLM; ai.operationId ...doGenerate, ...doStream (it goes before the others)
//	$ai_embedding   gen_ai.operation.name embeddings; llm.request.type embedding, embeddings;
//	                openinference.span.kind EMBEDDING; ai.operationId ai.embed.doEmbed, ai.embedMany.doEmbed
//	$ai_trace       any other span without a parent
//	$ai_span        any other
//
// and its properties are
//
//	$ai_trace_id, $ai_span_id, $ai_parent_id   the ids, as hexadecimal digits
//	$ai_ingestion_source                       "otel"
//	$ai_span_name, $otel_span_name             the name
//	$ai_latency                                the duration in seconds
//	$otel_start_time_unix_nano,
//	$otel_end_time_unix_nano                   as text
//	$ai_is_error, $ai_error                    where the status is an error: true, and the last exception, else the
//	                                           status' message
//	$ai_model, $ai_provider, $ai_input_tokens, $ai_output_tokens, $ai_cache_read_input_tokens,
//	$ai_cache_creation_input_tokens, $ai_base_url, $ai_session_id
//	                                           the first of their attributes (see mapped)
//	$ai_input, $ai_output_choices              the messages (see messages), out of attributes or the span's events;
//	                                           JSON within a string becomes that JSON
//	$lib, $lib_version, $geoip_disable         "posthog-otel", the instrumentation's version, true
//	everything else                            the span's and the resource's attributes under their own names, the
//	                                           span's first, without the resource's host., process., os. and
//	                                           telemetry.
//
// An attribute with the name of one of these properties goes before a value that would be made of other attributes. The
// ids, the times and the source are exceptions. Properties that claim to come from PostHog's AI gateway
// ($ai_gateway...) are left out, because nothing proves the claim. PostHog's pipeline makes the same properties of the
// attributes, and more, by the library that wrote them. It does so where $ai_ingestion_source is "otel", and finds the
// attributes that it looks for.
//
// The user is named by ai.telemetry.metadata.posthog_distinct_id, ai.settings.context.posthog_distinct_id,
// posthog.distinct_id, user.id or enduser.id of the span, else by the last three of the resource. A number names a user
// by its digits. If none of them names a user, the trace id stands for the user and no person is made. An event
// happened when its span began. Its UUID is made of the trace's and the span's id, so that the UUID is the same when
// the request is sent again.
//
// # Log records
//
// A record becomes an event $log with the properties body, severity_text, severity_number, service_name, event_name,
// trace_id, span_id, trace_flags, instrumentation_scope (name@version), observed_timestamp, attributes,
// resource_attributes, $session_id and $window_id. Unknown properties are left out. The user is named by
// posthogDistinctId, posthog.distinct_id, user.id or enduser.id, and the session by sessionId, session.id or
// $session_id, of the record or else of its resource. The user of a record that names none is its trace id, or else its
// UUID. Logs make no persons. The UUID is made of the token and all that the record says, and for equal records in one
// request also of their order.
package otlp
