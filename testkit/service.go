package testkit

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/fx"
	"go.yaml.in/yaml/v3"

	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/app/standard"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/transport"
)

// BrokersEnv names the environment variable that holds the brokers of a real cluster, separated by commas.
const BrokersEnv = "CAPTURE_TEST_KAFKA_BROKERS"

// patience is how long the testkit waits before it says that something hangs. It is no measure of speed.
const patience = 2 * time.Minute

// Option changes how the service is put together.
type Option func(*plan)

type plan struct {
	modules []module.Module
	values  map[string]string
	options []fx.Option
	// noKafka is set when the sink is replaced. Then nothing may ask for the broker, because that would start one.
	noKafka bool
}

// Set gives a configuration key a value, as text: Set("kafka.max_message_bytes", "2000"). A key that does not exist
// fails the test.
func Set(key, value string) Option {
	return func(p *plan) { p.values[key] = value }
}

// Override replaces the part of the graph that is provided as T, such as events.Sink, by value. The constructor of the
// real part does not run unless another part needs it. A T that no module provides fails the test.
func Override[T any](value T) Option {
	return func(p *plan) {
		p.options = append(p.options, fx.Decorate(func() T { return value }), fx.Invoke(func(T) {}))
		p.noKafka = p.noKafka || reflect.TypeFor[T]() == reflect.TypeFor[events.Sink]()
	}
}

// With adds a module to the stock ones.
func With(module module.Module) Option {
	return func(p *plan) { p.modules = append(p.modules, module) }
}

// Without leaves the named module out.
func Without(name string) Option {
	return func(p *plan) {
		kept := p.modules[:0:0]
		for _, module := range p.modules {
			if module.Name != name {
				kept = append(kept, module)
			}
		}
		p.modules = kept
	}
}

// Populate sets *target to the graph's T before Start returns, for a test that looks at a part.
func Populate[T any](target *T) Option {
	return func(p *plan) { p.options = append(p.options, fx.Populate(target)) }
}

// Service is a running service.
type Service struct {
	// URL is the address that SDKs send to. AdminURL is the address of the operators' listener; it is empty in a build
	// without the module admin. Neither ends with a slash.
	URL, AdminURL string

	tb      testing.TB
	app     *app.App
	file    string // the path of the configuration
	values  map[string]string
	client  *http.Client
	brokers []string
	topics  []string
	spooled *delivery.Delivery // nil without the module delivery, or without Kafka
	stop    sync.Once
	stopErr error
}

// Start builds and starts the service, and stops it when the test ends. A failure of the service fails the test.
//
// Warnings to projects come at a time of their own and would be counted with the test's own events. So they are off,
// with the real sink and with a replaced one, unless the test sets warnings.enabled.
func Start(tb testing.TB, options ...Option) *Service {
	tb.Helper()
	service, err := start(tb, options)
	if err != nil {
		tb.Fatalf("testkit: %v", err)
	}
	tb.Cleanup(func() {
		if err := service.Stop(); err != nil {
			tb.Errorf("testkit: stopping: %v", err)
		}
	})
	return service
}

func start(tb testing.TB, options []Option) (*Service, error) {
	p := plan{modules: standard.Modules(), values: map[string]string{}}
	for _, option := range options {
		option(&p)
	}
	p.preset(tb.TempDir())

	service := &Service{tb: tb, client: &http.Client{Transport: &http.Transport{}, Timeout: patience}}
	var (
		server    *transport.Server
		operators *admin.Server
		config    kafka.Config
		local     localBrokers
	)
	p.options = append(p.options, fx.Populate(&server))
	if p.has("admin") {
		p.options = append(p.options, fx.Populate(&operators))
	}
	if p.has("kafka") && !p.noKafka {
		p.options = append(p.options, fx.Populate(&config), fx.Invoke(func(found localBrokers) { local = found }))
		if p.has("delivery") {
			p.options = append(p.options, fx.Populate(&service.spooled))
		}
	}
	service.file, service.values = filepath.Join(tb.TempDir(), "capture.yaml"), p.values
	if err := service.write(); err != nil {
		return nil, err
	}
	build, err := app.Build(p.modules, configs.Source{Files: []string{service.file}}, p.options...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := build.Start(ctx); err != nil {
		return nil, err
	}
	service.app = build
	service.URL = url(server.Addr())
	if operators != nil {
		service.AdminURL = url(operators.Addr())
	}
	service.topics = config.Topics.Names()
	service.brokers = config.Brokers
	if len(config.Brokers) == 0 && len(local.Brokers) > 0 {
		service.brokers = []string{local.Brokers[0].Address()}
	}
	return service, nil
}

// has reports whether the build has the module.
func (p *plan) has(name string) bool {
	return slices.ContainsFunc(p.modules, func(m module.Module) bool { return m.Name == name })
}

// preset sets values that suit a test, for the keys that the build knows and the test has not set.
func (p *plan) preset(dir string) {
	presets := map[string]string{
		"transport.listen":        "127.0.0.1:0",
		"admin.listen":            "127.0.0.1:0",
		"embedded.kafka_listen":   "127.0.0.1:0",
		"embedded.data_dir":       filepath.Join(dir, "data"),
		"embedded.sync_writes":    "false", // no test cuts the power, and a sync takes ten times as long
		"delivery.spool.dir":      filepath.Join(dir, "spool"),
		"quota.dir":               filepath.Join(dir, "quota"),
		"usage.dir":               filepath.Join(dir, "usage"),
		"auth.replica":            filepath.Join(dir, "auth", "projects.json"),
		"store.dir":               filepath.Join(dir, "store"),
		"observability.log.level": "error",
		"warnings.enabled":        "false",
		// Kafka is given more time, because a busy machine is no outage.
		"delivery.spool_after":     "9s",
		"app.start_timeout":        patience.String(),
		"app.stop_timeout":         (2 * patience).String(),
		"embedded.start_timeout":   (patience / 2).String(),
		"transport.header_timeout": patience.String(),
		"transport.stop_timeout":   (patience / 2).String(),
		"warnings.stop_timeout":    (patience / 4).String(),
	}
	if brokers := os.Getenv(BrokersEnv); brokers != "" {
		presets["kafka.brokers"] = brokers
		prefix := "t" + strings.ReplaceAll(uuid.NewString(), "-", "") + "_"
		eachTopic(kafka.DefaultConfig().Topics, func(key, name string) { presets["kafka.topics."+key] = prefix + name })
	}
	for key, value := range presets {
		section, _, _ := strings.Cut(key, ".")
		if _, set := p.values[key]; !set && (section == "app" || p.has(section)) {
			p.values[key] = value
		}
	}
}

// localBrokers holds the brokers that the embedded module provides.
type localBrokers struct {
	fx.In

	Brokers []kafka.LocalBroker `group:"kafka_brokers"`
}

// eachTopic calls visit with the key and the name of every topic that has a key of its own and is set.
func eachTopic(topics produce.Topics, visit func(key, name string)) {
	value := reflect.ValueOf(topics)
	for i := range value.NumField() {
		if value.Field(i).Kind() == reflect.String && value.Field(i).String() != "" {
			visit(value.Type().Field(i).Tag.Get("key"), value.Field(i).String())
		}
	}
}

func url(address net.Addr) string { return "http://" + address.String() }

// Set changes configuration keys while the service runs, each given as "key=value": all of them or none. An error says
// why the old configuration stays in force. Set is not safe for concurrent use.
func (s *Service) Set(settings ...string) error {
	before := maps.Clone(s.values)
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		s.values[key] = value
	}
	if err := s.write(); err != nil {
		return err
	}
	err := s.app.Reload()
	if err != nil {
		s.values = before
		return errors.Join(err, s.write())
	}
	if client, ok := s.app.Config().Section("kafka").(kafka.Config); ok {
		s.topics = client.Topics.Names()
	}
	return nil
}

// write writes the values as the service's configuration file.
func (s *Service) write() error {
	root := map[string]any{}
	for key, value := range s.values {
		at, rest := root, strings.Split(key, ".")
		for ; len(rest) > 1; rest = rest[1:] {
			below, ok := at[rest[0]].(map[string]any)
			if !ok {
				below = map[string]any{}
				at[rest[0]] = below
			}
			at = below
		}
		at[rest[0]] = value
	}
	text, err := yaml.Marshal(root)
	if err != nil {
		return err
	}
	// The new file replaces the old one in one step, because the service watches it.
	if err := os.WriteFile(s.file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(s.file+".new", s.file)
}

// Stop stops the service as SIGTERM does, and returns an error that says what did not stop in order. A further call,
// and the end of the test, do nothing more.
func (s *Service) Stop() error {
	s.stop.Do(func() {
		s.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		defer cancel()
		s.stopErr = s.app.Stop(ctx)
	})
	return s.stopErr
}

// Eventually polls until done returns true. It fails the test if that takes too long.
func (s *Service) Eventually(what string, done func() bool) {
	s.tb.Helper()
	deadline := time.Now().Add(patience)
	for wait := time.Millisecond; !done(); wait = min(2*wait, 100*time.Millisecond) {
		if time.Now().After(deadline) {
			s.tb.Fatalf("testkit: waited %s in vain for %s", patience, what)
		}
		<-time.After(wait)
	}
}
