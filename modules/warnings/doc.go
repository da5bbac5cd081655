// Package warnings tells a project about its faulty events where the answer to a request cannot: a client whose bad
// event shared a batch with good ones gets a 200. The package writes messages to the stream of client warnings, in the
// form of PostHog's own capture service. A PostHog pipeline shows them to the project as ingestion warnings.
//
// A message is an event $$client_ingestion_warning with the properties
//
//	$$client_ingestion_warning_type      what happened, such as missing_distinct_id
//	$$client_ingestion_warning_message   the same as a sentence, for readers that do not know the type
//	$$client_ingestion_warning_source    "capture"
//	$$client_ingestion_warning_details   what helps to find the cause, about the first event that it happened to
//
// and with the distinct_id of that event, or "unknown". The types are:
//
//	missing_event_name, missing_distinct_id, invalid_event   an event was rejected
//	message_size_too_large                                   an event was rejected
//	replay_message_too_large, replay_message_invalid         a part of a recording was left out
//	rate_limited, quota_exceeded                             an event was dropped
//	event_out_of_scope                                       an event was rejected: the project may not send its kind
//	unknown_token                                            events were kept that auth.mode strict would refuse
//	distinct_id_truncated                                    an event was kept, with a shorter distinct_id
//	json_repaired                                            a request was not quite JSON or UTF-8, and was mended
//	ignored_invalid_timestamp                                an event is dated by its arrival: its time is unreadable
//	event_timestamp_in_future                                an event is dated by its arrival: its time is ahead
//	event_timestamp_out_of_range                             an event is dated 1970-01-01: its time is in no year
//	event_timestamp_too_old                                  an event keeps a time that is hardly meant, before 1971
//	ignored_invalid_sent_at                                  events' times are not corrected for the client's clock
//
// The contract: a warning never delays, changes or fails the events that it is about. A project gets at most one
// warning of a type in an interval, and the next one says how many were held back since. The warner writes a warning
// once, in the background, and does not repeat a failed attempt. It drops and counts the warnings that cannot be
// written or do not fit the queue. No client has sent these events, so they pass no stage and are in no ledger. There
// are no warnings about requests that are refused for their token, nor about events that the operator's own rules drop.
package warnings
