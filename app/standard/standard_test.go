package standard_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/app/posthogenv"
	"github.com/opencapture/capture/app/standard"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/kafka"
)

// files is the directory of the reference and the overlays.
const files = "../../configs"

const regenerate = "configs/reference.yaml is not what the modules say. Regenerate it: go run . config reference > " +
	"configs/reference.yaml"

func TestReferenceFileIsTrue(t *testing.T) {
	want, err := app.Reference(standard.Modules())
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(files, "reference.yaml"))
	require.NoError(t, err, regenerate)
	require.Equal(t, string(want), string(got), regenerate)
}

func TestReferenceFileLoadsAsTheDefaults(t *testing.T) {
	set, err := app.Load(standard.Modules(), configs.Source{Files: []string{filepath.Join(files, "reference.yaml")}})
	require.NoError(t, err)
	for _, module := range standard.Modules() {
		require.Equal(t, module.Config, set.Section(module.Name), module.Name)
	}
}

func TestOverlaysLoadAloneAndTogether(t *testing.T) {
	overlay := func(name string) string { return filepath.Join(files, name+".yaml") }
	dev, production, posthog := overlay("dev"), overlay("production"), overlay("posthog")
	combinations := [][]string{{dev}, {production}, {posthog}, {dev, posthog}, {production, posthog}}
	for _, mode := range []string{"events", "recordings", "ai", "import"} {
		combinations = append(combinations, []string{overlay(mode)}, []string{dev, overlay(mode)},
			[]string{production, posthog, overlay(mode)})
	}
	for _, overlays := range combinations {
		source := configs.Source{Files: overlays, Environ: []string{"CAPTURE_KAFKA__BROKERS=kafka-1:9092"}}
		_, err := app.Load(standard.Modules(), source)
		require.NoError(t, err, overlays)
	}
	_, err := app.Load(standard.Modules(), configs.Source{Files: []string{production}})
	require.EqualError(t, err, "kafka.brokers: must name the cluster's brokers, as embedded.enabled is false")
}

// A rule that no section can check alone reports its faults with the keys that contradict each other.
func TestRulesAcrossSectionsAreCheckedWithTheConfiguration(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, test := range []struct{ environ, fault string }{
		{"TRANSPORT__LISTEN=:8001",
			"transport.listen: is on port 8001, which admin.listen takes as well: give it another port"},
		{"ADMIN__LISTEN=localhost:19092",
			"embedded.kafka_listen: is on port 19092, which admin.listen takes as well"},
		{"ADMIN__LISTEN=localhost:19092 KAFKA__BROKERS=k:9092", ""},
		{"ADMIN__LISTEN=10.0.0.1:8000 TRANSPORT__LISTEN=10.0.0.2:8000", ""},
		{"ROUTING__TOPICS=phc_a=vip", `routing.topics: entry 1 sends events to "vip", which is none of kafka.topics: ` +
			"add it to kafka.topics.custom"},
		{"ROUTING__TOPICS=phc_a=vip KAFKA__TOPICS__CUSTOM=vip", ""},
		{"KAFKA__TLS__ENABLED=true KAFKA__TLS__CA_FILE=" + missing,
			"kafka.tls.ca_file: open " + missing + ": no such file or directory"},
		{"KAFKA__TLS__ENABLED=true KAFKA__TLS__CA_FILE=/dev/null", "kafka.tls.ca_file: no certificate in /dev/null"},
		{"KAFKA__TLS__ENABLED=true KAFKA__TLS__CERT_FILE=/dev/null KAFKA__TLS__KEY_FILE=/dev/null",
			"kafka.tls.cert_file: tls: failed to find any PEM data in certificate input"},
		{"KAFKA__SASL__MECHANISM=OAUTHBEARER KAFKA__SASL__TOKEN_COMMAND=/no/such/program",
			"kafka.sasl.token_command: "},
		{"TRANSPORT__SETUP__RECORDING_ENDPOINT=/s/", "transport.setup.recording_endpoint: tells browsers to record"},
		{"EMBEDDED__ENABLED=false", "kafka.brokers: must name the cluster's brokers"},
		{"ADMIN__LISTEN=:8000 TRANSPORT__LISTEN=127.0.0.1:8000",
			"transport.listen: is on port 8000, which admin.listen takes as well"},
		{"ADMIN__LISTEN=127.0.0.1:8003 TRANSPORT__LISTEN=0.0.0.0:8003",
			"transport.listen: is on port 8003, which admin.listen takes as well"},
		{"ADMIN__LISTEN=127.0.0.1:8003 TRANSPORT__LISTEN=[::]:8003",
			"transport.listen: is on port 8003, which admin.listen takes as well"},
		{"ADMIN__LISTEN=127.0.0.1:0 TRANSPORT__LISTEN=127.0.0.1:0", ""},
	} {
		var source configs.Source
		for _, variable := range strings.Fields(test.environ) {
			source.Environ = append(source.Environ, "CAPTURE_"+variable)
		}
		_, err := app.Load(standard.Modules(), source)
		if test.fault == "" {
			require.NoError(t, err, test.environ)
		} else {
			require.ErrorContains(t, err, test.fault, test.environ)
		}
	}
}

// What a configuration needs of the machine is looked at, and nothing is changed.
func TestTheDirectoriesOfAConfigurationAreLookedAt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	probe := func(environ ...string) string {
		var found configs.Faults
		for _, module := range standard.Modules() {
			for _, rule := range module.Probes {
				set, err := app.Load(standard.Modules(), configs.Source{Environ: environ})
				require.NoError(t, err)
				found.Nest("", rule(set))
			}
		}
		if err := found.Err(); err != nil {
			return err.Error()
		}
		return ""
	}
	fresh := t.TempDir()
	dirs := []string{
		"CAPTURE_DELIVERY__SPOOL__DIR=" + fresh + "/spool", "CAPTURE_EMBEDDED__DATA_DIR=" + fresh + "/data",
		"CAPTURE_STORE__DIR=" + fresh + "/store",
	}
	require.Empty(t, probe(dirs...))
	entries, err := os.ReadDir(fresh)
	require.NoError(t, err)
	require.Empty(t, entries, "nothing is made")
	bad := []string{
		"CAPTURE_DELIVERY__SPOOL__DIR=" + file + "/spool", "CAPTURE_EMBEDDED__DATA_DIR=" + file,
		"CAPTURE_STORE__DIR=" + file + "/store",
	}
	require.Contains(t, probe(bad...), "delivery.spool.dir: ")
	require.Contains(t, probe(bad...), "would run without a spool")
	require.Contains(t, probe(bad...), "embedded.data_dir: ")
	require.Contains(t, probe(bad...), "store.dir: ")
	require.Contains(t, probe(bad...), "would keep its state in memory")
	require.NotContains(t, probe(append(bad, "CAPTURE_KAFKA__BROKERS=k:9092")...), "embedded.data_dir")

	open := t.TempDir()
	require.NoError(t, os.Chmod(open, 0o777))
	found := probe("CAPTURE_DELIVERY__SPOOL__DIR="+open, "CAPTURE_EMBEDDED__DATA_DIR="+open, "CAPTURE_STORE__DIR="+open)
	require.Contains(t, found, "delivery.spool.dir: all users of this machine can write to")
	require.Contains(t, found, "embedded.data_dir: all users of this machine can write to")
	require.Contains(t, found, "store.dir: all users of this machine can write to")
}

// load translates the environment of a PostHog deployment and loads the result.
func load(t *testing.T, environ ...string) (set *configs.Set, text string) {
	t.Helper()
	yaml, err := app.FromPostHogEnv(standard.Modules(), environ)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "translated.yaml")
	require.NoError(t, os.WriteFile(file, yaml, 0o600))
	set, err = app.Load(standard.Modules(), configs.Source{Files: []string{file}})
	require.NoError(t, err, "%s", yaml)
	return set, string(yaml)
}

func TestATranslatedEnvironmentLoads(t *testing.T) {
	env, err := os.ReadFile("../posthogenv/testdata/compose.env")
	require.NoError(t, err)
	environ, err := posthogenv.ParseFile(string(env))
	require.NoError(t, err)
	set, _ := load(t, environ...)
	got := set.Section("kafka").(kafka.Config)
	require.Equal(t, []string{"kafka:9092"}, got.Brokers)
	require.Equal(t, 50*time.Millisecond, got.Linger)
	require.Equal(t, 20*time.Second, got.AckTimeout)
	require.True(t, got.TLS.Enabled)
	require.False(t, got.Topics.Create)
	require.Equal(t, 400*configs.MiB, set.Section("delivery").(delivery.Config).Buffer)
}

func TestAnEmptyEnvironmentBecomesTheTopicsOfTheOverlayAndTheModeEvents(t *testing.T) {
	set, _ := load(t)
	overlay, err := app.Load(standard.Modules(), configs.Source{
		Files:   []string{filepath.Join(files, "posthog.yaml"), filepath.Join(files, "events.yaml")},
		Environ: []string{"CAPTURE_KAFKA__TOPICS__CREATE=false"},
	})
	require.NoError(t, err)
	for _, module := range standard.Modules() {
		require.Equal(t, overlay.Section(module.Name), set.Section(module.Name), module.Name)
	}
}

func TestTheStockBuildHasEveryKeyThatATranslationWrites(t *testing.T) {
	_, text := load(t,
		"ADDRESS=127.0.0.1:3000", "CAPTURE_MODE=import", "LOG_LEVEL=info", "HTTP1_HEADER_READ_TIMEOUT_MS=5000",
		"DROP_EVENTS_BY_TOKEN_DISTINCT_ID=phc_a", "INGESTION_FORCE_OVERFLOW_BY_TOKEN_DISTINCT_ID=phc_b:me",
		"ENABLE_HISTORICAL_REROUTING=true", "EVENT_RESTRICTIONS_ENABLED=true",
		"EVENT_RESTRICTIONS_REFRESH_INTERVAL_SECS=30", "EVENT_RESTRICTIONS_FAIL_OPEN_AFTER_SECS=300",
		"CAPTURE_INGESTION_WARNINGS_ENABLED=true", "KAFKA_HOSTS=kafka:9092", "KAFKA_CLIENT_ID=edge", "KAFKA_TLS=true",
		"KAFKA_COMPRESSION_CODEC=zstd", "KAFKA_PRODUCER_MESSAGE_MAX_BYTES=2000000", "KAFKA_PRODUCER_QUEUE_MIB=400",
		"KAFKA_PRODUCER_LINGER_MS=20", "KAFKA_MESSAGE_TIMEOUT_MS=20000",
		"CAPTURE_ANALYTICS_AI_EVENTS_OVERFLOW_TOPIC=ai_overflow",
		"AI_MAX_EVENT_BYTES=0", "AI_MAX_SUM_OF_PARTS_BYTES=26214400", "CAPTURE_AI_LANE_PREDICATE=prefix",
	)
	require.NotContains(t, text, "# Keys that this build lacks")
}

func TestEveryKeyIsDocumented(t *testing.T) {
	text, err := app.Reference(standard.Modules())
	require.NoError(t, err)
	var reference yaml.Node
	require.NoError(t, yaml.Unmarshal(text, &reference))
	var walk func(node *yaml.Node, path string)
	walk = func(node *yaml.Node, path string) {
		for i := 0; i+1 < len(node.Content); i += 2 {
			name, value := node.Content[i], node.Content[i+1]
			if value.Kind == yaml.MappingNode {
				walk(value, path+name.Value+".")
				continue
			}
			require.NotEmpty(t, name.HeadComment, "%s%s has no doc tag", path, name.Value)
		}
	}
	walk(reference.Content[0], "")
}
