// Package warnings tells a project what became of its events, where the answer to a request cannot: a client
// whose bad event shared a batch with good ones gets a 200. For that it writes messages to the stream of client
// warnings, in the form in which PostHog's own capture service does, which a PostHog pipeline shows to the
// project as ingestion warnings.
//
// A message is an event $$client_ingestion_warning with the properties
//
//	$$client_ingestion_warning_type      what happened, such as missing_distinct_id
//	$$client_ingestion_warning_message   the same as a sentence, for readers that do not know the type
//	$$client_ingestion_warning_source    "capture"
//	$$client_ingestion_warning_details   what helps to find the cause, about the first event that it happened to
//
// and with the distinct_id of that event, or "unknown".
//
// The contract: warnings never delay, change or fail what they are about. They are told at most once per interval for a
// token and type, and say how many were held back since; they are written in the background, once, without a second
// attempt; and what cannot be written, or does not fit the queue, is dropped and counted. They are not events that
// anybody sent, so they pass no stage and are in no ledger. Requests without a valid token, and what the operator's own
// rules drop, are not told.
package warnings
