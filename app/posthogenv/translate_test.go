package posthogenv_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/opencapture/capture/app/posthogenv"
	"github.com/opencapture/capture/configs"
)

// keys are the keys of a build with every module that a translation can need, in the order of its reference.
func keys() []string {
	return []string{
		"observability.log.level", "observability.log.format", "admin.listen",
		"store.posthog.addrs", "store.posthog.username", "store.posthog.database", "store.posthog.tls.enabled",
		"store.posthog.prefix", "store.posthog.timeout",
		"auth.mode", "auth.ttl", "auth.unknown_ttl", "auth.timeout", "auth.max_projects",
		"quota.user_rates", "routing.drop", "routing.overflow", "routing.historical_after", "routing.historical_only",
		"routing.posthog", "routing.rules_refresh", "routing.rules_stale_after",
		"warnings.enabled",
		"kafka.brokers", "kafka.client_id",
		"kafka.topics.events", "kafka.topics.recordings", "kafka.topics.historical", "kafka.topics.client_warnings",
		"kafka.topics.exceptions", "kafka.topics.overflow", "kafka.topics.recordings_overflow", "kafka.topics.heatmaps",
		"kafka.topics.ai", "kafka.topics.ai_overflow", "kafka.topics.dlq", "kafka.topics.create",
		"kafka.compression", "kafka.max_message_bytes", "kafka.linger", "kafka.ack_timeout", "kafka.tls.enabled",
		"delivery.buffer",
		"transport.listen", "transport.serve", "transport.header_timeout", "transport.posthog.max_ai_event",
		"transport.posthog.ai_lane",
		"ai.max_sum_of_parts",
	}
}

// translated is the result of a translation: the file, and its values by key.
type translated struct {
	text   string
	values map[string]any
}

func translate(t *testing.T, environ ...string) translated {
	t.Helper()
	text, err := posthogenv.Translate(environ, keys())
	require.NoError(t, err)
	var sections map[string]any
	require.NoError(t, yaml.Unmarshal(text, &sections), "%s", text)
	values := map[string]any{}
	var walk func(group map[string]any, path string)
	walk = func(group map[string]any, path string) {
		for name, value := range group {
			if below, ok := value.(map[string]any); ok {
				walk(below, path+name+".")
				continue
			}
			values[path+name] = value
		}
	}
	walk(sections, "")
	return translated{text: string(text), values: values}
}

// block returns the comments under a title as one line.
func (r translated) block(title string) string {
	_, rest, found := strings.Cut(r.text, "\n# "+title+":\n")
	if !found {
		return ""
	}
	rest, _, _ = strings.Cut(rest, "\n\n")
	return strings.Join(strings.Fields(strings.ReplaceAll("\n"+rest, "\n# ", "\n")), " ")
}

// The titles of the comments.
const (
	lacking     = "Keys that this build lacks"
	counterless = "No counterpart"
	nothing     = "Nothing to do"
	unknown     = "Not known, though the names look like PostHog's"
	toKnow      = "To know"
)

// variables are all variables that the sections 1.4, 4.1, 7 and 9 of the specification name.
func variables() []string {
	return strings.Fields(`
		ADDRESS CAPTURE_MODE REDIS_URL REDIS_RESPONSE_TIMEOUT_MS REDIS_CONNECTION_TIMEOUT_MS REDIS_KEY_PREFIX PRINT_SINK
		NOOP_SINK
		CONCURRENCY_LIMIT HTTP1_HEADER_READ_TIMEOUT_MS BODY_CHUNK_READ_TIMEOUT_MS BODY_READ_CHUNK_SIZE_KB
		REQUEST_TIMEOUT_SECONDS
		OVERFLOW_ENABLED OVERFLOW_PRESERVE_PARTITION_LOCALITY OVERFLOW_PER_SECOND_LIMIT OVERFLOW_BURST_LIMIT
		INGESTION_FORCE_OVERFLOW_BY_TOKEN_DISTINCT_ID DROP_EVENTS_BY_TOKEN_DISTINCT_ID
		ENABLE_HISTORICAL_REROUTING HISTORICAL_REROUTING_THRESHOLD_DAYS
		EVENT_RESTRICTIONS_ENABLED EVENT_RESTRICTIONS_REDIS_URL EVENT_RESTRICTIONS_REFRESH_INTERVAL_SECS
		EVENT_RESTRICTIONS_FAIL_OPEN_AFTER_SECS
		TOKEN_VALIDATION_MODE KNOWN_TOKENS_REDIS_URL KNOWN_TOKENS_LOOKUP_TIMEOUT_MS KNOWN_TOKENS_KNOWN_CACHE_TTL_SECS
		KNOWN_TOKENS_UNKNOWN_CACHE_TTL_SECS KNOWN_TOKENS_CACHE_MAX_ENTRIES KNOWN_TOKENS_MARKER_REFRESH_SECS
		KNOWN_TOKENS_MARKER_MAX_AGE_SECS
		GLOBAL_RATE_LIMIT_ENABLED GLOBAL_RATE_LIMIT_DRY_RUN GLOBAL_RATE_LIMIT_WINDOW_INTERVAL_SECS
		GLOBAL_RATE_LIMIT_SYNC_INTERVAL_SECS GLOBAL_RATE_LIMIT_TICK_INTERVAL_MS
		GLOBAL_RATE_LIMIT_TOKEN_DISTINCTID_THRESHOLD
		GLOBAL_RATE_LIMIT_TOKEN_DISTINCTID_OVERRIDES_CSV GLOBAL_RATE_LIMIT_TOKEN_DISTINCTID_LOCAL_CACHE_MAX_ENTRIES
		GLOBAL_RATE_LIMIT_MIN_SYNC_FLOOR GLOBAL_RATE_LIMIT_MAX_SYNC_KEYS_PER_TICK GLOBAL_RATE_LIMIT_MAX_KEYS_PER_COMMAND
		GLOBAL_RATE_LIMIT_MAX_CONCURRENT_COMMANDS GLOBAL_RATE_LIMIT_MAX_WRITE_BATCH_ENTRIES
		GLOBAL_RATE_LIMIT_MAX_PENDING_SYNC_ENTRIES GLOBAL_RATE_LIMIT_LOCAL_CACHE_TTL_SECS
		GLOBAL_RATE_LIMIT_LOCAL_CACHE_IDLE_TIMEOUT_SECS GLOBAL_RATE_LIMIT_READ_TIMEOUT_MS
		GLOBAL_RATE_LIMIT_WRITE_TIMEOUT_MS
		GLOBAL_RATE_LIMIT_REDIS_URL GLOBAL_RATE_LIMIT_REDIS_READER_URL GLOBAL_RATE_LIMIT_CUSTOM_THRESHOLD_KEY
		GLOBAL_RATE_LIMIT_CUSTOM_THRESHOLD_REFRESH_SECS
		S3_FALLBACK_ENABLED S3_FALLBACK_BUCKET S3_FALLBACK_ENDPOINT S3_FALLBACK_PREFIX
		IS_MIRROR_DEPLOY VERBOSE_SAMPLE_PERCENT LOG_LEVEL RUST_LOG EXPORT_PROMETHEUS OTEL_URL OTEL_SAMPLING_RATE
		OTEL_SERVICE_NAME
		HEALTHCHECK_STRATEGY
		AI_MAX_SUM_OF_PARTS_BYTES AI_MAX_EVENT_BYTES AI_GATEWAY_SIGNING_SECRET AI_BYTE_LIMIT_PER_SECOND
		AI_BYTE_LIMIT_OVERRIDES_CSV
		AI_BYTE_LIMIT_DRY_RUN AI_BYTE_LIMIT_WINDOW_INTERVAL_SECS CAPTURE_AI_LANE_PREDICATE
		CAPTURE_V1_SINKS CAPTURE_V1_SINK_MSK_KAFKA_HOSTS CAPTURE_V1_SINK_MSK_KAFKA_TLS
		CAPTURE_V1_SINK_MSK_KAFKA_TOPIC_MAIN
		CAPTURE_V1_MAX_COMPRESSED_BODY_BYTES CAPTURE_V1_MAX_DECOMPRESSED_BODY_BYTES CAPTURE_V1_SCATTER_GATHER_MIN_BATCH
		CAPTURE_INGESTION_WARNINGS_ENABLED CAPTURE_INGESTION_WARNINGS_KAFKA_HOSTS CAPTURE_INGESTION_WARNINGS_KAFKA_TOPIC
		CAPTURE_INGESTION_WARNINGS_KAFKA_TLS CAPTURE_INGESTION_WARNINGS_KAFKA_QUEUE_MIB
		CAPTURE_INGESTION_WARNINGS_KAFKA_MESSAGE_MAX_BYTES
		CAPTURE_OUTPUT_ANALYTICS_MAIN_PRODUCER CAPTURE_OUTPUT_DLQ_PRODUCER CAPTURE_OUTPUTS_COMPLETENESS_CHECK_ENABLED
		CAPTURE_ANALYTICS_KAFKA_EMERGENCY_FALLBACK KAFKA_REPLAY_ENVELOPE_COMPRESSION
		KAFKA_INGESTION_PRODUCER_METADATA_BROKER_LIST KAFKA_INGESTION_PRODUCER_SECURITY_PROTOCOL
		KAFKA_INGESTION_PRODUCER_CLIENT_ID
		KAFKA_INGESTION_PRODUCER_COMPRESSION_CODEC KAFKA_INGESTION_PRODUCER_LINGER_MS
		KAFKA_INGESTION_PRODUCER_MESSAGE_MAX_BYTES
		KAFKA_INGESTION_PRODUCER_MESSAGE_TIMEOUT_MS KAFKA_INGESTION_PRODUCER_RETRIES KAFKA_INGESTION_PRODUCER_ACKS
		KAFKA_INGESTION_PRODUCER_STICKY_PARTITIONING_LINGER_MS
		KAFKA_HOSTS KAFKA_TLS KAFKA_CLIENT_ID KAFKA_PRODUCER_LINGER_MS KAFKA_PRODUCER_QUEUE_MIB KAFKA_MESSAGE_TIMEOUT_MS
		KAFKA_PRODUCER_MESSAGE_MAX_BYTES KAFKA_COMPRESSION_CODEC KAFKA_PRODUCER_ACKS KAFKA_PRODUCER_MAX_RETRIES
		KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS KAFKA_METADATA_MAX_AGE_MS KAFKA_SOCKET_TIMEOUT_MS
		CAPTURE_OUTPUT_ANALYTICS_MAIN_TOPIC CAPTURE_OUTPUT_ANALYTICS_OVERFLOW_TOPIC
		CAPTURE_OUTPUT_ANALYTICS_HISTORICAL_TOPIC
		CAPTURE_OUTPUT_SESSION_REPLAY_MAIN_TOPIC CAPTURE_OUTPUT_SESSION_REPLAY_OVERFLOW_TOPIC
		CAPTURE_OUTPUT_HEATMAPS_TOPIC
		CAPTURE_OUTPUT_CLIENT_WARNINGS_TOPIC CAPTURE_OUTPUT_ERROR_TRACKING_TOPIC CAPTURE_OUTPUT_DLQ_TOPIC
		CAPTURE_OUTPUT_AI_MAIN_TOPIC
		CAPTURE_OUTPUT_AI_OVERFLOW_TOPIC
		KAFKA_TOPIC KAFKA_OVERFLOW_TOPIC KAFKA_HISTORICAL_TOPIC KAFKA_REPLAY_OVERFLOW_TOPIC KAFKA_HEATMAPS_TOPIC
		KAFKA_CLIENT_INGESTION_WARNING_TOPIC KAFKA_ERROR_TRACKING_TOPIC KAFKA_EXCEPTIONS_TOPIC KAFKA_DLQ_TOPIC
		CAPTURE_ANALYTICS_AI_EVENTS_TOPIC CAPTURE_ANALYTICS_AI_EVENTS_OVERFLOW_TOPIC`)
}

func TestEveryVariableOfTheSpecificationIsKnown(t *testing.T) {
	for _, name := range variables() {
		text, err := posthogenv.Translate([]string{name + "=42"}, keys())
		if err != nil {
			require.ErrorContains(t, err, name, "a value that it cannot have is told")
			continue
		}
		require.Contains(t, string(text), name)
		require.NotContains(t, string(text), "# "+unknown)
	}
}

// section 4.1
func TestTopicsHaveTheNamesThatTheDeploymentReliesOn(t *testing.T) {
	for key, names := range map[string][]string{
		"events":     {"events_plugin_ingestion", "CAPTURE_OUTPUT_ANALYTICS_MAIN_TOPIC", "KAFKA_TOPIC"},
		"recordings": {"events_plugin_ingestion", "CAPTURE_OUTPUT_SESSION_REPLAY_MAIN_TOPIC", "KAFKA_TOPIC"},
		"historical": {"events_plugin_ingestion_historical", "CAPTURE_OUTPUT_ANALYTICS_HISTORICAL_TOPIC",
			"KAFKA_HISTORICAL_TOPIC"},
		"client_warnings": {"ingestion-clientwarnings-main-1", "CAPTURE_OUTPUT_CLIENT_WARNINGS_TOPIC",
			"KAFKA_CLIENT_INGESTION_WARNING_TOPIC"},
		"exceptions": {"error_tracking_events", "CAPTURE_OUTPUT_ERROR_TRACKING_TOPIC",
			"KAFKA_ERROR_TRACKING_TOPIC", "KAFKA_EXCEPTIONS_TOPIC"},
		"overflow": {"events_plugin_ingestion_overflow", "CAPTURE_OUTPUT_ANALYTICS_OVERFLOW_TOPIC",
			"KAFKA_OVERFLOW_TOPIC"},
		"recordings_overflow": {"session_recording_snapshot_item_overflow",
			"CAPTURE_OUTPUT_SESSION_REPLAY_OVERFLOW_TOPIC", "KAFKA_REPLAY_OVERFLOW_TOPIC"},
		"heatmaps": {"heatmaps_ingestion", "CAPTURE_OUTPUT_HEATMAPS_TOPIC", "KAFKA_HEATMAPS_TOPIC"},
		"ai": {"events_plugin_ingestion_ai", "CAPTURE_OUTPUT_AI_MAIN_TOPIC",
			"CAPTURE_ANALYTICS_AI_EVENTS_TOPIC"},
		"dlq":         {"events_plugin_ingestion_dlq", "CAPTURE_OUTPUT_DLQ_TOPIC", "KAFKA_DLQ_TOPIC"},
		"ai_overflow": {"", "CAPTURE_OUTPUT_AI_OVERFLOW_TOPIC", "CAPTURE_ANALYTICS_AI_EVENTS_OVERFLOW_TOPIC"},
	} {
		key = "kafka.topics." + key
		none := translate(t)
		if standard := names[0]; standard == "" {
			require.NotContains(t, none.values, key)
		} else {
			require.Equal(t, standard, none.values[key])
		}
		var environ []string
		for _, name := range slices.Backward(names[1:]) {
			environ = append(environ, name+"=of_"+name)
			require.Equal(t, "of_"+name, translate(t, environ...).values[key], "of two names the newest counts")
			require.Equal(t, "of_"+name, translate(t, name+"=of_"+name).values[key])
		}
	}
	require.Equal(t, false, translate(t).values["kafka.topics.create"])
}

// section 1.1
func TestTheModeDecidesWhatIsServed(t *testing.T) {
	for mode, serve := range map[string]string{
		"events": "analytics", " Recordings ": "recordings", "AI": "ai", "import": "analytics",
	} {
		got := translate(t, "CAPTURE_MODE="+mode)
		require.Equal(t, []any{serve}, got.values["transport.serve"], mode)
		require.Equal(t, mode == "import", got.values["routing.historical_only"] == true, mode)
	}
	require.Equal(t, []any{"analytics"}, translate(t).values["transport.serve"], "events is PostHog's default")
	require.Equal(t, []any{"analytics"}, translate(t, "CAPTURE_MODE=").values["transport.serve"],
		"an empty variable counts as none")
}

// section 9
func TestValuesAreConvertedAndSayWhereTheyComeFrom(t *testing.T) {
	for _, test := range []struct{ variable, line string }{
		{"ADDRESS=0.0.0.0:3000", "  listen: 0.0.0.0:3000 # ADDRESS"},
		{"ADDRESS=[::]:3000", "  listen: '[::]:3000' # ADDRESS"},
		{"LOG_LEVEL=WARN", "    level: warn # LOG_LEVEL=WARN"},
		{"LOG_LEVEL=trace", "    level: debug # LOG_LEVEL=trace"},
		{"LOG_LEVEL=off", "    level: error # LOG_LEVEL=off"},
		{"HTTP1_HEADER_READ_TIMEOUT_MS=1500", "  header_timeout: 1500ms # HTTP1_HEADER_READ_TIMEOUT_MS=1500"},
		{"DROP_EVENTS_BY_TOKEN_DISTINCT_ID=phc_a, phc_b:me:too,",
			"  drop: [phc_a, 'phc_b:me:too'] # DROP_EVENTS_BY_TOKEN_DISTINCT_ID=phc_a, phc_b:me:too,"},
		{"DROP_EVENTS_BY_TOKEN_DISTINCT_ID=a:event=1,a:e=1",
			"  drop: ['a:distinct_id=event=1', 'a:e=1'] # DROP_EVENTS_BY_TOKEN_DISTINCT_ID=a:event=1,a:e=1"},
		{"EVENT_RESTRICTIONS_ENABLED=false", "  posthog: false # EVENT_RESTRICTIONS_ENABLED"},
		{"EVENT_RESTRICTIONS_REFRESH_INTERVAL_SECS=30",
			"  rules_refresh: 30s # EVENT_RESTRICTIONS_REFRESH_INTERVAL_SECS=30"},
		{"EVENT_RESTRICTIONS_FAIL_OPEN_AFTER_SECS=300",
			"  rules_stale_after: 300s # EVENT_RESTRICTIONS_FAIL_OPEN_AFTER_SECS=300"},
		{"INGESTION_FORCE_OVERFLOW_BY_TOKEN_DISTINCT_ID=phc_a,phc_b",
			"  overflow: [phc_a, phc_b] # INGESTION_FORCE_OVERFLOW_BY_TOKEN_DISTINCT_ID"},
		{"ENABLE_HISTORICAL_REROUTING=false", "  historical_after: 0s # ENABLE_HISTORICAL_REROUTING=false"},
		{"ENABLE_HISTORICAL_REROUTING=true", "  historical_after: 24h # ENABLE_HISTORICAL_REROUTING=true"},
		{"TOKEN_VALIDATION_MODE=off", "  mode: open # TOKEN_VALIDATION_MODE=off"},
		{"TOKEN_VALIDATION_MODE=dry_run", "  mode: known # TOKEN_VALIDATION_MODE=dry_run"},
		{"TOKEN_VALIDATION_MODE=Enforce", "  mode: strict # TOKEN_VALIDATION_MODE=Enforce"},
		{"KNOWN_TOKENS_KNOWN_CACHE_TTL_SECS=600", "  ttl: 600s # KNOWN_TOKENS_KNOWN_CACHE_TTL_SECS=600"},
		{"KNOWN_TOKENS_UNKNOWN_CACHE_TTL_SECS=60", "  unknown_ttl: 60s # KNOWN_TOKENS_UNKNOWN_CACHE_TTL_SECS=60"},
		{"KNOWN_TOKENS_LOOKUP_TIMEOUT_MS=50", "  timeout: 50ms # KNOWN_TOKENS_LOOKUP_TIMEOUT_MS=50"},
		{"KNOWN_TOKENS_CACHE_MAX_ENTRIES=100000", "  max_projects: 100000 # KNOWN_TOKENS_CACHE_MAX_ENTRIES"},
		{"CAPTURE_INGESTION_WARNINGS_ENABLED=true", "  enabled: true # CAPTURE_INGESTION_WARNINGS_ENABLED"},
		{"AI_MAX_EVENT_BYTES=8388608", "    max_ai_event: 8MiB # AI_MAX_EVENT_BYTES=8388608"},
		{"AI_MAX_EVENT_BYTES=0", "    max_ai_event: 0 # AI_MAX_EVENT_BYTES"},
		{"AI_MAX_SUM_OF_PARTS_BYTES=26214400", "  max_sum_of_parts: 25MiB # AI_MAX_SUM_OF_PARTS_BYTES=26214400"},
		{"CAPTURE_AI_LANE_PREDICATE=prefix", "    ai_lane: prefix # CAPTURE_AI_LANE_PREDICATE"},

		{"KAFKA_INGESTION_PRODUCER_METADATA_BROKER_LIST=a,b:9093",
			"  brokers: ['a:9092', 'b:9093'] # KAFKA_INGESTION_PRODUCER_METADATA_BROKER_LIST=a,b:9093"},
		{"KAFKA_HOSTS=a:9092", "  brokers: ['a:9092'] # KAFKA_HOSTS"},
		{"KAFKA_INGESTION_PRODUCER_SECURITY_PROTOCOL=PLAINTEXT",
			"    enabled: false # KAFKA_INGESTION_PRODUCER_SECURITY_PROTOCOL=PLAINTEXT"},
		{"KAFKA_INGESTION_PRODUCER_SECURITY_PROTOCOL=sasl_ssl",
			"    enabled: true # KAFKA_INGESTION_PRODUCER_SECURITY_PROTOCOL=sasl_ssl"},
		{"KAFKA_TLS=true", "    enabled: true # KAFKA_TLS"},
		{"KAFKA_INGESTION_PRODUCER_CLIENT_ID=true", `  client_id: "true" # KAFKA_INGESTION_PRODUCER_CLIENT_ID`},
		{"KAFKA_CLIENT_ID=edge", "  client_id: edge # KAFKA_CLIENT_ID"},
		{"KAFKA_INGESTION_PRODUCER_COMPRESSION_CODEC=lz4",
			"  compression: lz4 # KAFKA_INGESTION_PRODUCER_COMPRESSION_CODEC"},
		{"KAFKA_COMPRESSION_CODEC=none", "  compression: none # KAFKA_COMPRESSION_CODEC"},
		{"KAFKA_INGESTION_PRODUCER_LINGER_MS=0", "  linger: 0s # KAFKA_INGESTION_PRODUCER_LINGER_MS=0"},
		{"KAFKA_PRODUCER_LINGER_MS=20", "  linger: 20ms # KAFKA_PRODUCER_LINGER_MS=20"},
		{"KAFKA_PRODUCER_QUEUE_MIB=400", "  buffer: 400MiB # KAFKA_PRODUCER_QUEUE_MIB=400"},
		{"KAFKA_INGESTION_PRODUCER_MESSAGE_TIMEOUT_MS=20000",
			"  ack_timeout: 20s # KAFKA_INGESTION_PRODUCER_MESSAGE_TIMEOUT_MS=20000"},
		{"KAFKA_MESSAGE_TIMEOUT_MS=2500", "  ack_timeout: 2500ms # KAFKA_MESSAGE_TIMEOUT_MS=2500"},
		{"KAFKA_INGESTION_PRODUCER_MESSAGE_MAX_BYTES=1000000",
			"  max_message_bytes: 1000000 # KAFKA_INGESTION_PRODUCER_MESSAGE_MAX_BYTES"},
		{"KAFKA_PRODUCER_MESSAGE_MAX_BYTES=2097152",
			"  max_message_bytes: 2MiB # KAFKA_PRODUCER_MESSAGE_MAX_BYTES=2097152"},
	} {
		require.Contains(t, translate(t, test.variable).text, "\n"+test.line+"\n", test.variable)
	}
	both := translate(t, "ENABLE_HISTORICAL_REROUTING=true", "HISTORICAL_REROUTING_THRESHOLD_DAYS=3")
	require.Equal(t, "72h", both.values["routing.historical_after"])
	require.NotContains(t, translate(t, "HISTORICAL_REROUTING_THRESHOLD_DAYS=3").values, "routing.historical_after")
}

// sections 5.2 and 5.4
func TestTheRatesOfUsers(t *testing.T) {
	rates := func(env ...string) any { return translate(t, env...).values["quota.user_rates"] }
	require.Equal(t, []any{"events=100/s burst=1000"}, rates("OVERFLOW_ENABLED=true"))
	require.Equal(t, []any{"events=5/s burst=7"},
		rates("OVERFLOW_ENABLED=true", "OVERFLOW_PER_SECOND_LIMIT=5", "OVERFLOW_BURST_LIMIT=7"))
	each := func(rate string) (all []any) {
		for _, resource := range []string{"events", "exceptions", "ai", "surveys"} {
			all = append(all, resource+"="+rate)
		}
		return all
	}
	require.Equal(t, each("18000000/h burst=300000"), rates("GLOBAL_RATE_LIMIT_ENABLED=true"))
	require.Equal(t, each("3600/h burst=10"), rates("GLOBAL_RATE_LIMIT_ENABLED=true",
		"GLOBAL_RATE_LIMIT_WINDOW_INTERVAL_SECS=10", "GLOBAL_RATE_LIMIT_TOKEN_DISTINCTID_THRESHOLD=10"))
	require.Nil(t, rates("GLOBAL_RATE_LIMIT_ENABLED=true", "GLOBAL_RATE_LIMIT_DRY_RUN=true"))
	require.Nil(t, rates("GLOBAL_RATE_LIMIT_ENABLED=false", "OVERFLOW_ENABLED=false"))
}

// section 5.4
func TestThresholdsOfSingleProjectsAndUsersAreToldLoudly(t *testing.T) {
	const overrides = "GLOBAL_RATE_LIMIT_TOKEN_DISTINCTID_OVERRIDES_CSV="
	env := []string{"GLOBAL_RATE_LIMIT_ENABLED=true", "GLOBAL_RATE_LIMIT_WINDOW_INTERVAL_SECS=10",
		overrides + "phc_a=20, phc_b:a=b@example.com=7,phc_b:c=8", "GLOBAL_RATE_LIMIT_CUSTOM_THRESHOLD_KEY=the\nkey"}
	told := translate(t, env...).block(toKnow)
	require.Contains(t, told, `"capture project set 'phc_a' 'user_rates=events=7200/h burst=20, `+
		`exceptions=7200/h burst=20, ai=7200/h burst=20, surveys=7200/h burst=20'"`)
	require.Contains(t, told, "single users, 2 of them, which are LOST")
	require.Contains(t, told, `under "the\nkey" are NOT READ`)
	require.NotContains(t, told, "example.com")
	for _, off := range []string{"GLOBAL_RATE_LIMIT_ENABLED=false", "GLOBAL_RATE_LIMIT_DRY_RUN=true"} {
		told := translate(t, append(slices.Clone(env), off)...).block(toKnow)
		require.NotContains(t, told, "LOST", off)
		require.NotContains(t, told, "NOT READ", off)
	}
	for _, wrong := range []string{"phc_a", "=5", "phc_a:=5", "phc_a=0", "phc_a=x", "a'b=5"} {
		_, err := posthogenv.Translate([]string{env[0], overrides + wrong}, keys())
		require.ErrorContains(t, err, strings.TrimSuffix(overrides, "="), wrong)
	}
}

func TestWhatIsNotSetIsLeftToOurDefaults(t *testing.T) {
	for key := range translate(t).values {
		require.True(t, strings.HasPrefix(key, "kafka.topics.") || key == "transport.serve", key)
	}
}

// section 9
func TestWhatHasNoCounterpartSaysSoAndWhatNeedsNoneToo(t *testing.T) {
	for _, test := range []struct {
		variable, title, part string
	}{
		{"REDIS_CONNECTION_TIMEOUT_MS=5000", counterless, "No request waits for a connection to PostHog's Redis"},
		{"OVERFLOW_PER_SECOND_LIMIT=5", nothing, "a part of quota.user_rates"},
		{"OVERFLOW_PRESERVE_PARTITION_LOCALITY=true", counterless, "to any partition"},
		{"EVENT_RESTRICTIONS_REDIS_URL=redis://redis:6379", counterless,
			"Restrictions are read from the one Redis of PostHog's"},
		{"KNOWN_TOKENS_REDIS_URL=redis://redis:6379", counterless, "from the Redis of store.posthog.addrs"},
		{"KNOWN_TOKENS_MARKER_MAX_AGE_SECS=3600", nothing, "an hour after it was whole"},
		{"KNOWN_TOKENS_MARKER_MAX_AGE_SECS=60", counterless, "an hour after it was whole"},
		{"GLOBAL_RATE_LIMIT_DRY_RUN=true", nothing, "a part of quota.user_rates"},
		{"GLOBAL_RATE_LIMIT_TICK_INTERVAL_MS=5", counterless, "How nodes count together"},
		{"GLOBAL_RATE_LIMIT_CUSTOM_THRESHOLD_KEY=k", counterless, "user_rates of its own"},
		{"S3_FALLBACK_BUCKET=b", counterless, "There is no fallback to S3"},
		{"KAFKA_PRODUCER_ACKS=all", nothing, "all in-sync replicas"},
		{"KAFKA_PRODUCER_ACKS=1", counterless, "all in-sync replicas"},
		{"KAFKA_INGESTION_PRODUCER_ACKS=all", nothing, "all in-sync replicas"},
		{"KAFKA_INGESTION_PRODUCER_BATCH_SIZE=5", counterless, "a setting of librdkafka"},
		{"KAFKA_INGESTION_PRODUCER_SASL_USERNAME=u", counterless, "set kafka.sasl.mechanism"},
		{"CAPTURE_OUTPUT_HEATMAPS_PRODUCER=INGESTION", nothing, "one producer"},
		{"CAPTURE_V1_SINKS=msk", nothing, "always served"},
		{"CAPTURE_V1_SINK_MSK_KAFKA_HOSTS=h", counterless, "the one cluster"},
		{"EXPORT_PROMETHEUS=true", nothing, "admin.listen"},
		{"EXPORT_PROMETHEUS=false", counterless, "admin.listen"},
		{"BODY_CHUNK_READ_TIMEOUT_MS=5000", counterless, "transport.body_timeout"},
		{"CONCURRENCY_LIMIT=100", counterless, "transport.max_in_flight"},
	} {
		require.Contains(t, translate(t, test.variable).block(test.title), test.part, test.variable)
	}
	together := translate(t, "S3_FALLBACK_BUCKET=b", "S3_FALLBACK_ENABLED=true")
	require.Contains(t, together.block(counterless), "- S3_FALLBACK_BUCKET=b, S3_FALLBACK_ENABLED=true: There is no",
		"what is said of both is said once")
}

func TestTheRedisOfPostHogIsReadAndItsPasswordIsNotWritten(t *testing.T) {
	for address, want := range map[string]map[string]any{
		"redis://redis":        {"addrs": []any{"redis:6379"}},
		"redis://redis:6380/0": {"addrs": []any{"redis:6380"}},
		"rediss://eve:hunter2@r.example.com:6379/2": {
			"addrs": []any{"r.example.com:6379"}, "username": "eve", "database": 2, "tls.enabled": true,
		},
		"redis://[::1]:6379/": {"addrs": []any{"[::1]:6379"}},
	} {
		got := translate(t, "REDIS_URL="+address)
		for key, value := range want {
			require.Equal(t, value, got.values["store.posthog."+key], "%s of %s", key, address)
		}
		require.NotContains(t, got.text, "hunter2")
		require.Equal(t, strings.Contains(address, "hunter2"),
			strings.Contains(got.text, "set store.posthog.password_file"))
		found := 0
		for key := range got.values {
			if strings.HasPrefix(key, "store.") {
				found++
			}
		}
		require.Equal(t, len(want), found, "%s: no more than that: %v", address, got.values)
	}
	got := translate(t, "REDIS_KEY_PREFIX=posthog:", "REDIS_RESPONSE_TIMEOUT_MS=100")
	require.Equal(t, "posthog:", got.values["store.posthog.prefix"])
	require.Equal(t, "100ms", got.values["store.posthog.timeout"])
	require.NotContains(t, translate(t, "REDIS_RESPONSE_TIMEOUT_MS=0").values, "store.posthog.timeout")
	for _, address := range []string{
		"redis:6379", "http://redis", "redis://", "redis://u:hunter2@redis/x", "redis://a,b",
	} {
		_, err := posthogenv.Translate([]string{"REDIS_URL=" + address}, keys())
		require.ErrorContains(t, err, "REDIS_URL: must be such as redis://host:6379/0")
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestSecretsAreMasked(t *testing.T) {
	for _, variable := range []string{
		"AI_GATEWAY_SIGNING_SECRET=hunter2", "REDIS_URL=redis://:hunter2@redis:6379", "REDIS_PASSWORD=hunter2",
		"KAFKA_INGESTION_PRODUCER_SASL_PASSWORD=hunter2", "OTEL_URL=https://collector?token=hunter2",
		"CAPTURE_NEW_THING=hunter2",
	} {
		name, _, _ := strings.Cut(variable, "=")
		got := translate(t, variable)
		require.Contains(t, got.text, name)
		require.NotContains(t, got.text, "hunter2", variable)
	}
}

func TestAFaultShowsNoPassword(t *testing.T) {
	for _, hosts := range []string{"user:hunter2@kafka:9092", "a:9092,ssl://u:hunter2@b:1", "hunter2@kafka:9092"} {
		_, err := posthogenv.Translate([]string{"KAFKA_HOSTS=" + hosts}, keys())
		require.ErrorContains(t, err, "KAFKA_HOSTS: must be host:port, got ")
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestWhatMakesNoSenseIsReportedAllAtOnce(t *testing.T) {
	_, err := posthogenv.Translate([]string{
		"CAPTURE_MODE=foo", "KAFKA_PRODUCER_LINGER_MS=abc", "KAFKA_MESSAGE_TIMEOUT_MS=0", "KAFKA_TLS=yes",
		"KAFKA_TOPIC=a b",
		"KAFKA_HOSTS=ssl://kafka:9092", "ADDRESS=3000", "LOG_LEVEL=loud", "DROP_EVENTS_BY_TOKEN_DISTINCT_ID=phc_a:",
		"ENABLE_HISTORICAL_REROUTING=true", "HISTORICAL_REROUTING_THRESHOLD_DAYS=0.5", "KAFKA_PRODUCER_QUEUE_MIB=-1",
		"KNOWN_TOKENS_KNOWN_CACHE_TTL_SECS=86401",
	}, keys())
	var faults *configs.FaultsError
	require.ErrorAs(t, err, &faults)
	require.ElementsMatch(t, []string{
		`CAPTURE_MODE: must be one of events, recordings, ai, import, got "foo"`,
		`KAFKA_PRODUCER_LINGER_MS: must be a whole number of milliseconds from 0 to 2147483647, got "abc"`,
		`KAFKA_MESSAGE_TIMEOUT_MS: must be a whole number of milliseconds from 1 to 2147483647, got "0"`,
		`KAFKA_TLS: must be one of true, false, got "yes"`,
		`KAFKA_TOPIC: must be the name of a topic: 1 to 249 letters, digits, dots, underscores or hyphens, got "a b"`,
		`KAFKA_HOSTS: must be host:port, got "ssl://kafka:9092"`,
		`ADDRESS: must be host:port, got "3000"`,
		`LOG_LEVEL: must be one of trace, debug, info, warn, error, off, got "loud"`,
		`DROP_EVENTS_BY_TOKEN_DISTINCT_ID: must be a list of token or token:distinct_id, got "phc_a:" in it`,
		"ENABLE_HISTORICAL_REROUTING: HISTORICAL_REROUTING_THRESHOLD_DAYS must be a whole number of days from " +
			`1 to 36500, got "0.5"`,
		`KNOWN_TOKENS_KNOWN_CACHE_TTL_SECS: must be a whole number of seconds from 1 to 86400, got "86401"`,
		`KAFKA_PRODUCER_QUEUE_MIB: must be a whole number of MiB from 1 to 2147483647, got "-1"`,
	}, strings.Split(err.Error(), "\n"))
}

func TestAnOlderNameThatSaysSomethingElseIsTold(t *testing.T) {
	got := translate(t, "KAFKA_DLQ_TOPIC=old", "CAPTURE_OUTPUT_DLQ_TOPIC=new")
	require.Equal(t, "new", got.values["kafka.topics.dlq"])
	require.Contains(t, got.block(toKnow),
		"kafka.topics.dlq is what CAPTURE_OUTPUT_DLQ_TOPIC says. KAFKA_DLQ_TOPIC=old does not count")
	require.NotContains(t, translate(t, "KAFKA_DLQ_TOPIC=same", "CAPTURE_OUTPUT_DLQ_TOPIC=same").text, "does not count")
}

func TestWhatOneHadBetterKnow(t *testing.T) {
	none := translate(t).block(toKnow)
	require.Contains(t, none, "No variable names the brokers.")
	require.Contains(t, none, "Metrics are at /metrics of admin.listen")
	require.NotContains(t, none, "certificates")

	some := translate(t, "KAFKA_HOSTS=a:9092", "CAPTURE_MODE=events",
		"KAFKA_INGESTION_PRODUCER_SECURITY_PROTOCOL=SASL_SSL",
		"KAFKA_MESSAGE_TIMEOUT_MS=20000").block(toKnow)
	require.NotContains(t, some, "No variable names the brokers.")
	require.Contains(t, some, "certificates are verified here")
	require.Contains(t, some, "set kafka.sasl.mechanism")
	require.Contains(t, some, "Take these out of its environment: CAPTURE_MODE.")
}

func TestOtherVariablesArePassedOver(t *testing.T) {
	none := translate(t)
	for _, variable := range []string{
		"PATH=/usr/bin", "CAPTURE_KAFKA__BROKERS=a:9092", "CAPTURE_TRANSPORT__POSTHOG__MAX_EVENTS=5",
		"CAPTURE_TEST_AS_MAIN=1",
		"CAPTURE_PORT_8000_TCP_ADDR=10.0.0.1", "CAPTURE_SERVICE_HOST=10.0.0.1", "KAFKA_SERVICE_PORT_CLIENT=9092",
		"KAFKA_PORT=tcp://10.0.0.1:9092",
		"REDIS_PORT_6379_TCP=tcp://10.0.0.1:6379", "OTEL_EXPORTER_OTLP_ENDPOINT=x", "=C:=C:\\", "",
	} {
		require.Equal(t, none.text, translate(t, variable).text, variable)
	}
	require.Equal(t, "- CAPTURE_MODES - KAFKA_FOO", translate(t, "KAFKA_FOO=1", "CAPTURE_MODES=2").block(unknown))
}

func TestKeysThatTheBuildLacksAreNotWritten(t *testing.T) {
	build := []string{"kafka.brokers", "transport.serve", "transport.listen"}
	text, err := posthogenv.Translate([]string{"DROP_EVENTS_BY_TOKEN_DISTINCT_ID=phc_a,phc_b", "CAPTURE_MODE=import",
		"KAFKA_DLQ_TOPIC=d"}, build)
	require.NoError(t, err)
	got := translated{text: string(text)}
	require.Contains(t, got.block(lacking),
		"- routing.drop: phc_a,phc_b (DROP_EVENTS_BY_TOKEN_DISTINCT_ID): include the module routing.")
	require.Contains(t, got.block(lacking),
		"- kafka.topics.dlq: d (KAFKA_DLQ_TOPIC): the module kafka of this build has no such key.")
	require.Contains(t, got.text, "\n\ntransport:\n  serve: [analytics] # CAPTURE_MODE=import\n\n")
	require.NotContains(t, got.text, "\nrouting:")
	require.Empty(t, translate(t, "CAPTURE_MODE=import").block(lacking))
}

func TestNoValueBreaksOutOfItsPlace(t *testing.T) {
	for _, value := range []string{"a # b", "a: b", "- a", "a\nkafka: {}", "'\"", "[a", "null", "0x1f", "\x07", "\xff",
		"é\u2028x", "{{}}"} {
		got := translate(t, "KAFKA_CLIENT_ID="+value, "REDIS_KEY_PREFIX="+value, "OTEL_SERVICE_NAME="+value)
		require.IsType(t, "", got.values["kafka.client_id"], value)
		if value != "\xff" {
			require.Equal(t, value, got.values["kafka.client_id"])
		}
		require.Len(t, got.values, len(translate(t, "KAFKA_CLIENT_ID=a", "REDIS_KEY_PREFIX=a").values), value)
	}
}

func TestARealisticEnvironmentBecomesTheGoldenFile(t *testing.T) {
	env, err := os.ReadFile(filepath.Join("testdata", "compose.env"))
	require.NoError(t, err)
	environ, err := posthogenv.ParseFile(string(env))
	require.NoError(t, err)
	got, err := posthogenv.Translate(environ, keys())
	require.NoError(t, err)
	want, err := os.ReadFile(filepath.Join("testdata", "compose.yaml"))
	require.NoError(t, err)
	require.Equal(t, string(want), string(got),
		"regenerate it: go run . config from-posthog-env --env-file app/posthogenv/testdata/compose.env > "+
			"app/posthogenv/testdata/compose.yaml")
}

func TestParseFileReadsWhatPeopleHave(t *testing.T) {
	got, err := posthogenv.ParseFile("# comment\n\nA=1\r\n  export B=\"two words\" # why\nC='x # y'\nD=plain # why\n" +
		"E=a=b#c\nF=\n" +
		"PEM=-----BEGIN-----\nabc/\n-----END-----\nG=7")
	require.NoError(t, err)
	require.Equal(t, []string{
		"A=1", "B=two words", "C=x # y", "D=plain", "E=a=b#c", "F=", "PEM=-----BEGIN-----\nabc/\n-----END-----", "G=7",
	}, got)

	got, err = posthogenv.ParseFile("")
	require.NoError(t, err)
	require.Empty(t, got)

	_, err = posthogenv.ParseFile("# compose\nservices:\n  capture:\n")
	require.EqualError(t, err, "line 2 is not NAME=value")
}
