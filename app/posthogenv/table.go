package posthogenv

import (
	"path"
	"strings"
)

// setting maps a variable to a key.
type setting struct {
	// name is the variable's name, or "" for a value that is written where no variable gives one.
	name    string
	key     string
	convert conversion
	// note says why a setting without a name is written.
	note string
}

// The notes of settings without a name.
const (
	upstreamDefault = "PostHog's default"
	topicsExist     = "PostHog has made its topics"
)

// settings lists the variables with a counterpart. Of the variables with the same key, the newest name comes first.
// Some of PostHog's defaults are written although no variable is set, because a guess would be costly: the mode and the
// topics. The other defaults are left out.
func settings(env map[string]string) []setting {
	return []setting{
		{name: "LOG_LEVEL", key: "observability.log.level", convert: logLevel},

		{name: "TOKEN_VALIDATION_MODE", key: "auth.mode", convert: validationMode},
		{name: "KNOWN_TOKENS_KNOWN_CACHE_TTL_SECS", key: "auth.ttl", convert: seconds(86_400)},
		{name: "KNOWN_TOKENS_UNKNOWN_CACHE_TTL_SECS", key: "auth.unknown_ttl", convert: seconds(86_400)},
		{name: "KNOWN_TOKENS_LOOKUP_TIMEOUT_MS", key: "auth.timeout", convert: lookupTimeout},
		{name: "KNOWN_TOKENS_CACHE_MAX_ENTRIES", key: "auth.max_projects", convert: entries},

		{name: "DROP_EVENTS_BY_TOKEN_DISTINCT_ID", key: "routing.drop", convert: rules},
		{name: "INGESTION_FORCE_OVERFLOW_BY_TOKEN_DISTINCT_ID", key: "routing.overflow", convert: rules},
		{name: globalOn, key: "quota.user_rates", convert: globalRate(env)},
		{name: "OVERFLOW_ENABLED", key: "quota.user_rates", convert: overflowRate(env)},
		{name: "ENABLE_HISTORICAL_REROUTING", key: "routing.historical_after",
			convert: rerouting(env["HISTORICAL_REROUTING_THRESHOLD_DAYS"])},
		{name: "CAPTURE_MODE", key: "routing.historical_only", convert: historicalOnly},
		{name: "EVENT_RESTRICTIONS_ENABLED", key: "routing.posthog", convert: boolean},
		{name: "EVENT_RESTRICTIONS_REFRESH_INTERVAL_SECS", key: "routing.rules_refresh", convert: seconds(3600)},
		{name: "EVENT_RESTRICTIONS_FAIL_OPEN_AFTER_SECS", key: "routing.rules_stale_after",
			convert: seconds(30 * 24 * 3600)},

		{name: "CAPTURE_INGESTION_WARNINGS_ENABLED", key: "warnings.enabled", convert: boolean},

		{name: "KAFKA_INGESTION_PRODUCER_METADATA_BROKER_LIST", key: "kafka.brokers", convert: brokers},
		{name: "KAFKA_HOSTS", key: "kafka.brokers", convert: brokers},
		{name: "KAFKA_INGESTION_PRODUCER_CLIENT_ID", key: "kafka.client_id", convert: text},
		{name: "KAFKA_CLIENT_ID", key: "kafka.client_id", convert: text},

		{name: "CAPTURE_OUTPUT_ANALYTICS_MAIN_TOPIC", key: "kafka.topics.events", convert: topic},
		{name: "KAFKA_TOPIC", key: "kafka.topics.events", convert: topic},
		{key: "kafka.topics.events", convert: always("events_plugin_ingestion"), note: upstreamDefault},
		{name: "CAPTURE_OUTPUT_SESSION_REPLAY_MAIN_TOPIC", key: "kafka.topics.recordings", convert: topic},
		{name: "KAFKA_TOPIC", key: "kafka.topics.recordings", convert: topic},
		{key: "kafka.topics.recordings", convert: always("events_plugin_ingestion"), note: upstreamDefault},
		{name: "CAPTURE_OUTPUT_ANALYTICS_HISTORICAL_TOPIC", key: "kafka.topics.historical", convert: topic},
		{name: "KAFKA_HISTORICAL_TOPIC", key: "kafka.topics.historical", convert: topic},
		{key: "kafka.topics.historical", convert: always("events_plugin_ingestion_historical"), note: upstreamDefault},
		{name: "CAPTURE_OUTPUT_CLIENT_WARNINGS_TOPIC", key: "kafka.topics.client_warnings", convert: topic},
		{name: "KAFKA_CLIENT_INGESTION_WARNING_TOPIC", key: "kafka.topics.client_warnings", convert: topic},
		{key: "kafka.topics.client_warnings", convert: always("ingestion-clientwarnings-main-1"),
			note: upstreamDefault},
		{name: "CAPTURE_OUTPUT_ERROR_TRACKING_TOPIC", key: "kafka.topics.exceptions", convert: topic},
		{name: "KAFKA_ERROR_TRACKING_TOPIC", key: "kafka.topics.exceptions", convert: topic},
		{name: "KAFKA_EXCEPTIONS_TOPIC", key: "kafka.topics.exceptions", convert: topic},
		{key: "kafka.topics.exceptions", convert: always("error_tracking_events"), note: upstreamDefault},
		{name: "CAPTURE_OUTPUT_ANALYTICS_OVERFLOW_TOPIC", key: "kafka.topics.overflow", convert: topic},
		{name: "KAFKA_OVERFLOW_TOPIC", key: "kafka.topics.overflow", convert: topic},
		{key: "kafka.topics.overflow", convert: always("events_plugin_ingestion_overflow"), note: upstreamDefault},
		{name: "CAPTURE_OUTPUT_SESSION_REPLAY_OVERFLOW_TOPIC", key: "kafka.topics.recordings_overflow", convert: topic},
		{name: "KAFKA_REPLAY_OVERFLOW_TOPIC", key: "kafka.topics.recordings_overflow", convert: topic},
		{key: "kafka.topics.recordings_overflow", convert: always("session_recording_snapshot_item_overflow"),
			note: upstreamDefault},
		{name: "CAPTURE_OUTPUT_HEATMAPS_TOPIC", key: "kafka.topics.heatmaps", convert: topic},
		{name: "KAFKA_HEATMAPS_TOPIC", key: "kafka.topics.heatmaps", convert: topic},
		{key: "kafka.topics.heatmaps", convert: always("heatmaps_ingestion"), note: upstreamDefault},
		{name: "CAPTURE_OUTPUT_AI_MAIN_TOPIC", key: "kafka.topics.ai", convert: topic},
		{name: "CAPTURE_ANALYTICS_AI_EVENTS_TOPIC", key: "kafka.topics.ai", convert: topic},
		{key: "kafka.topics.ai", convert: always("events_plugin_ingestion_ai"), note: upstreamDefault},
		{name: "CAPTURE_OUTPUT_AI_OVERFLOW_TOPIC", key: "kafka.topics.ai_overflow", convert: topic},
		{name: "CAPTURE_ANALYTICS_AI_EVENTS_OVERFLOW_TOPIC", key: "kafka.topics.ai_overflow", convert: topic},
		{name: "CAPTURE_OUTPUT_DLQ_TOPIC", key: "kafka.topics.dlq", convert: topic},
		{name: "KAFKA_DLQ_TOPIC", key: "kafka.topics.dlq", convert: topic},
		{key: "kafka.topics.dlq", convert: always("events_plugin_ingestion_dlq"), note: upstreamDefault},
		{key: "kafka.topics.create", convert: always(false), note: topicsExist},

		{name: "KAFKA_INGESTION_PRODUCER_COMPRESSION_CODEC", key: "kafka.compression",
			convert: oneOf("none", "gzip", "snappy", "lz4", "zstd")},
		{name: "KAFKA_COMPRESSION_CODEC", key: "kafka.compression",
			convert: oneOf("none", "gzip", "snappy", "lz4", "zstd")},
		{name: "KAFKA_INGESTION_PRODUCER_MESSAGE_MAX_BYTES", key: "kafka.max_message_bytes", convert: byteCount(1)},
		{name: "KAFKA_PRODUCER_MESSAGE_MAX_BYTES", key: "kafka.max_message_bytes", convert: byteCount(1)},
		{name: "KAFKA_INGESTION_PRODUCER_LINGER_MS", key: "kafka.linger", convert: milliseconds(0)},
		{name: "KAFKA_PRODUCER_LINGER_MS", key: "kafka.linger", convert: milliseconds(0)},
		{name: "KAFKA_INGESTION_PRODUCER_MESSAGE_TIMEOUT_MS", key: "kafka.ack_timeout", convert: milliseconds(1)},
		{name: "KAFKA_MESSAGE_TIMEOUT_MS", key: "kafka.ack_timeout", convert: milliseconds(1)},
		{name: "KAFKA_INGESTION_PRODUCER_SECURITY_PROTOCOL", key: "kafka.tls.enabled", convert: securityProtocol},
		{name: "KAFKA_TLS", key: "kafka.tls.enabled", convert: boolean},

		{name: "KAFKA_PRODUCER_QUEUE_MIB", key: "delivery.buffer", convert: mebibytes},

		{name: "REDIS_URL", key: "store.posthog.addrs", convert: redis(func(r redisURL) any {
			return []string{r.address}
		})},
		{name: "REDIS_URL", key: "store.posthog.username", convert: redis(func(r redisURL) any {
			return unlessZero(r.username)
		})},
		{name: "REDIS_URL", key: "store.posthog.database", convert: redis(func(r redisURL) any {
			return unlessZero(r.database)
		})},
		{name: "REDIS_URL", key: "store.posthog.tls.enabled", convert: redis(func(r redisURL) any {
			return unlessZero(r.tls)
		})},
		{name: "REDIS_KEY_PREFIX", key: "store.posthog.prefix", convert: text},
		{name: "REDIS_RESPONSE_TIMEOUT_MS", key: "store.posthog.timeout", convert: redisTimeout},

		{name: "ADDRESS", key: "transport.listen", convert: address},
		{name: "CAPTURE_MODE", key: "transport.serve", convert: served},
		{key: "transport.serve", convert: always([]string{"analytics"}),
			note: upstreamDefault + ": CAPTURE_MODE=events"},
		{name: "HTTP1_HEADER_READ_TIMEOUT_MS", key: "transport.header_timeout", convert: milliseconds(1)},
		{name: "AI_MAX_EVENT_BYTES", key: "transport.posthog.max_ai_event", convert: byteCount(0)},
		{name: "CAPTURE_AI_LANE_PREDICATE", key: "transport.posthog.ai_lane", convert: oneOf("allowlist", "prefix")},

		{name: "AI_MAX_SUM_OF_PARTS_BYTES", key: "ai.max_sum_of_parts", convert: byteCount(1)},
	}
}

// remark is a sentence about variables that become no key.
type remark struct {
	// name is the variable's name; a * stands for any part of a name.
	name string
	// same is the value with which a variable asks for what this service does in any case, or * for every value.
	same string
	note string
}

// remarks are about the variables without a counterpart. The first remark that fits a name counts.
var remarks = []remark{
	{"HISTORICAL_REROUTING_THRESHOLD_DAYS", "*",
		"It is a part of routing.historical_after where ENABLE_HISTORICAL_REROUTING is true, and means nothing " +
			"elsewhere."},

	{"KAFKA_INGESTION_PRODUCER_ACKS", "all", acks},
	{"KAFKA_PRODUCER_ACKS", "all", acks},
	{"KAFKA_INGESTION_PRODUCER_RETRIES", "", retries},
	{"KAFKA_PRODUCER_MAX_RETRIES", "", retries},
	{"KAFKA_INGESTION_PRODUCER_SASL_*", "", "The login to the brokers has keys of its own: set kafka.sasl.mechanism " +
		"and what it needs: username and password, a token, or AWS's region."},
	{"KAFKA_INGESTION_PRODUCER_SSL_*", "",
		"Certificates have keys of their own: set kafka.tls.ca_file, cert_file, key_file and server_name."},
	{"KAFKA_INGESTION_PRODUCER_*", "", librdkafka},
	{"KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS", "", librdkafka},
	{"KAFKA_METADATA_MAX_AGE_MS", "", librdkafka},
	{"KAFKA_SOCKET_TIMEOUT_MS", "",
		"Attempts to connect end after kafka.connect_timeout, writes after kafka.ack_timeout."},
	{"KAFKA_REPLAY_ENVELOPE_COMPRESSION", "none",
		"Recordings are not compressed one by one: batches of messages are, as kafka.compression says."},
	{"CAPTURE_OUTPUT_*_PRODUCER", "INGESTION", "There is one producer, for all topics."},
	{"CAPTURE_OUTPUTS_COMPLETENESS_CHECK_ENABLED", "true", "The service does not start with a topic that has no name."},
	{"CAPTURE_ANALYTICS_KAFKA_*", "", "There is no second cluster to switch to: change kafka.brokers."},
	{"CAPTURE_V1_SINKS", "*", "The v1 routes are always served, and write to the same topics as all others."},
	{"CAPTURE_V1_SINK_*", "", "What the v1 routes take goes to the one cluster and the topics of the section kafka."},
	{"CAPTURE_V1_MAX_*", "", "transport.max_body and transport.max_decoded hold for all routes, v1 and v0."},
	{"CAPTURE_V1_SCATTER_GATHER_MIN_BATCH", "",
		"How the work on a request is spread over processors is not configured."},
	{"CAPTURE_INGESTION_WARNINGS_KAFKA_*", "",
		"Warnings go to kafka.topics.client_warnings, on the same way as events."},

	{"REDIS_CONNECTION_TIMEOUT_MS", "", "No request waits for a connection to PostHog's Redis."},
	{"REDIS_*", "", "Of PostHog's Redis, store.posthog has all there is to set."},
	{"OVERFLOW_PER_SECOND_LIMIT", "*", overflow},
	{"OVERFLOW_BURST_LIMIT", "*", overflow},
	{"OVERFLOW_PRESERVE_PARTITION_LOCALITY", "false", "Events over a rate go to any partition of the overflow topic."},
	{"EVENT_RESTRICTIONS_*", "", restrictions},
	{"KNOWN_TOKENS_REDIS_URL", "", "The known tokens are read from the Redis of store.posthog.addrs."},
	{"KNOWN_TOKENS_MARKER_REFRESH_SECS", "", "Whether the list of known tokens is fresh is read with each lookup."},
	{"KNOWN_TOKENS_MARKER_MAX_AGE_SECS", "3600", "The list of known tokens counts for an hour after it was whole."},
	{globalDry, "*", rateLimit},
	{globalWindow, "*", rateLimit},
	{globalMost, "*", rateLimit},
	{"GLOBAL_RATE_LIMIT_*OVERRIDES_CSV", "", "A project has user_rates of its own in its record."},
	{"GLOBAL_RATE_LIMIT_CUSTOM_THRESHOLD_*", "", "A project has user_rates of its own in its record."},
	{"GLOBAL_RATE_LIMIT_*", "", "How nodes count together follows from the rate: the section quota has all " +
		"there is to set."},
	{"AI_BYTE_LIMIT_PER_SECOND", "0", byteLimit},
	{"AI_BYTE_LIMIT_*", "", byteLimit},
	{"AI_GATEWAY_SIGNING_SECRET", "",
		"Signatures of PostHog's AI gateway are not verified: its properties are taken off every event."},
	{"S3_FALLBACK_ENABLED", "false", s3},
	{"S3_FALLBACK_*", "", s3},

	{"CONCURRENCY_LIMIT", "", "What is bounded is the memory of requests, not their number: transport.max_in_flight, " +
		"and a 503 instead of a queue."},
	{"BODY_CHUNK_READ_TIMEOUT_MS", "", requestTime},
	{"REQUEST_TIMEOUT_SECONDS", "", requestTime},
	{"BODY_READ_CHUNK_SIZE_KB", "*", "Buffers have the size that bodies need."},
	{"PRINT_SINK", "false", devSinks},
	{"NOOP_SINK", "false", devSinks},

	{"EXPORT_PROMETHEUS", "true", "Metrics are always kept, at /metrics of admin.listen."},
	{"OTEL_URL", "", tracing},
	{"OTEL_SAMPLING_RATE", "", tracing},
	{"OTEL_SERVICE_NAME", "",
		"Metrics and logs have no label for the deployment: Prometheus and the collector of logs can add one."},
	{"RUST_LOG", "", "observability.log.level is the level of all logs."},
	{"VERBOSE_SAMPLE_PERCENT", "", "Single requests are logged at level debug, not by a sample."},
	{"IS_MIRROR_DEPLOY", "false", "It only marks logs."},
	{"HEALTHCHECK_STRATEGY", "", "Liveness says that the process answers, readiness that it can take events."},
}

// Notes that several remarks share.
const (
	acks = "An acknowledgement of Kafka's is one of all in-sync replicas, always. What an answer of 200 " +
		"waits for is delivery.ack."
	retries    = "A write is repeated until kafka.ack_timeout, without duplicates."
	librdkafka = "It is a setting of librdkafka, which is not the producer here: the section kafka has all there " +
		"is to set."
	overflow     = "It is a part of quota.user_rates where OVERFLOW_ENABLED is true, and means nothing elsewhere."
	restrictions = "Restrictions are read from the one Redis of PostHog's that store.posthog.addrs names."
	rateLimit    = "It is a part of quota.user_rates where GLOBAL_RATE_LIMIT_ENABLED is true, and means nothing " +
		"elsewhere."
	byteLimit = "The bytes of AI events are not limited by rate."
	s3        = "There is no fallback to S3: what Kafka does not take waits in the spool on this machine's disk, " +
		"see delivery.spool."
	requestTime = "What is bounded is the time for a whole body, by transport.body_timeout, and for events to be " +
		"safe, by delivery.timeout."
	devSinks = "Events are not printed or thrown away: without kafka.brokers the embedded broker keeps them, and " +
		"\"capture tail\" prints them."
	tracing = "There are no traces yet."
)

// isSame reports whether the value asks for what this service does in any case.
func (r remark) isSame(value string) bool {
	return r.same == "*" || r.same != "" && strings.EqualFold(r.same, value)
}

// remarkOn returns the remark about a variable.
func remarkOn(name string) (remark, bool) {
	for _, remark := range remarks {
		if fits, _ := path.Match(remark.name, name); fits {
			return remark, true
		}
	}
	return remark{}, false
}

// prefixes are the beginnings of names that look like variables of PostHog's capture. All of its variables that begin
// otherwise are in the tables.
var prefixes = []string{"CAPTURE_", "KAFKA_", "HISTORICAL_", "HTTP1_", "BODY_", "AI_"}
