package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/admin/client"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/restriction"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledger is events.Allowances whose counts the test sets. The real one has tests of its own, and one in testkit
// together with this package.
type ledger struct {
	mu   sync.Mutex
	all  events.Limits // of projects that have none of their own
	used map[string]int64
	fail error
}

func (l *ledger) LimitsOf(project *events.Project) *events.Limits {
	if project != nil && project.Limits != nil {
		return project.Limits
	}
	return &l.all
}

func (l *ledger) allowance(token string, quota events.Quota) events.Allowance {
	start, reset := quota.Period.Window(time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC))
	key := token + " " + quota.Resource.String() + "/" + quota.Period.String()
	return events.Allowance{Quota: quota, Used: l.used[key], Held: min(1, l.used[key]), Start: start, Reset: reset}
}

func (l *ledger) Usage(_ context.Context, token string, limits *events.Limits) (all []events.Allowance, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, quota := range limits.Quotas {
		all = append(all, l.allowance(token, quota))
	}
	return all, l.fail
}

func (l *ledger) Refund(
	_ context.Context, token string, _ *events.Limits, quota events.Quota, n int64,
) (events.Allowance, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := token + " " + quota.Resource.String() + "/" + quota.Period.String()
	l.used[key] = max(1, l.used[key]-n)
	return l.allowance(token, quota), l.fail
}

func (l *ledger) Reset(
	ctx context.Context, token string, limits *events.Limits, quota events.Quota,
) (events.Allowance, error) {
	return l.Refund(ctx, token, limits, quota, 1<<40)
}

// service is the endpoints on a server, with a local store below.
type service struct {
	*local.Store
	*ledger

	url     string
	audited *bytes.Buffer
	// before is called with every request before it is answered, if it is set.
	before func(*http.Request)
	filed  filed
}

// topics is a section with the topics of the configuration.
type topics struct {
	Topics produce.Topics `key:"topics"`
}

// filed are the projects that stand in files.
type filed map[string]*project.Record

func (f filed) InFile(token string) *project.Record { return f[token] }

func start(t *testing.T) *service {
	t.Helper()
	records := local.New(local.Config{}, zap.NewNop(), tally.NoopScope)
	require.NoError(t, records.Start(t.Context()))
	s := &service{
		Store: records, audited: &bytes.Buffer{}, filed: filed{},
		ledger: &ledger{used: map[string]int64{}, all: events.Limits{
			Quotas: []events.Quota{{Resource: events.ResourceEvents, Period: events.PerDay, Limit: 100}},
			Rates:  []events.Rate{{Resource: events.ResourceEvents, Limit: 5, Per: time.Second, Burst: 50}},
		}},
	}
	auditLog := audit.New(func() string { return "" }, s.audited, zap.NewNop(), tally.NoopScope.Counter("x"))
	mux := http.NewServeMux()
	for _, e := range Endpoints(records, s.filed, s.ledger, configs.Fixed(topics{Topics: produce.Topics{
		Events: "clickhouse_events", Custom: []string{"vip"},
	}}), auditLog, zap.NewNop()) {
		mux.Handle(e.Pattern, e.Handler)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.before != nil {
			s.before(r)
		}
		mux.ServeHTTP(w, r)
	}))
	s.url = server.URL
	t.Cleanup(func() {
		server.Close()
		auditLog.Close()
		require.NoError(t, records.Stop(context.Background()))
	})
	return s
}

// run runs the command of the words, as the app does, and returns what it prints.
func (s *service) run(t *testing.T, words ...string) (out, hints string, err error) {
	t.Helper()
	commands := Module().Commands
	var command module.Command
	for len(words) > 0 {
		i := slices.IndexFunc(commands, func(c module.Command) bool {
			name, _, _ := strings.Cut(c.Use, " ")
			return name == words[0]
		})
		if i < 0 {
			break
		}
		command, commands, words = commands[i], commands[i].Commands, words[1:]
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	command.Flags(flags)
	output := flags.String("output", command.Output, "")
	require.NoError(t, flags.Parse(words))
	var printed, said bytes.Buffer
	use := module.Invocation{
		Context: t.Context(), Args: flags.Args(), Output: *output, Out: &printed, Err: &said,
	}
	own := client.Own{Listen: strings.TrimPrefix(s.url, "http://")}
	err = command.Run.(func(module.Invocation, client.Own) error)(use, own)
	return printed.String(), said.String(), err
}

func (s *service) ask(t *testing.T, method, path, body string, header ...string) (status int, text, tag string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	got, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	require.NoError(t, err)
	read, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	require.NoError(t, got.Body.Close())
	return got.StatusCode, string(read), got.Header.Get("ETag")
}

// Any byte of ASCII may be in a token.
const oddToken = "phc{*}:a/b?c#d%2F..\n\"\\ e\x1b[31m"

func TestAProjectIsSetShownListedAndDeleted(t *testing.T) {
	for _, token := range []string{"phc_mine", oddToken, "..", "."} {
		s := start(t)
		out, _, err := s.run(t, "project", "set", token, "name=Shop", "quotas=events=7/day",
			"origins=HTTPS://Shop.example/")
		require.NoError(t, err)
		require.Equal(t, "+ name=Shop\n+ enabled=true\n+ origins=https://shop.example\n+ quotas=events=7/day\n", out)
		fields, err := s.Get(t.Context(), project.Kind, token)
		require.NoError(t, err)
		require.Equal(t, store.Fields{
			"name": "Shop", "enabled": "true", "origins": "https://shop.example", "quotas": "events=7/day",
		}, fields)

		out, _, err = s.run(t, "project", "set", token, "name=", "enabled=false")
		require.NoError(t, err)
		require.Equal(t, "- name=Shop\n- enabled=true\n+ enabled=false\n", out)
		out, hints, err := s.run(t, "project", "set", token, "enabled=false")
		require.NoError(t, err)
		require.Empty(t, out)
		require.Contains(t, hints, "nothing to change")
		out, _, err = s.run(t, "project", "set", token, "enabled=true", "--dry-run")
		require.NoError(t, err)
		require.Equal(t, "- enabled=false\n+ enabled=true\n", out)
		out, _, err = s.run(t, "project", "set", token, "quotas=", "--dry-run")
		require.NoError(t, err)
		require.Equal(t, "- quotas=events=7/day\n", out)

		out, _, err = s.run(t, "project", "show", token)
		require.NoError(t, err)
		require.Equal(t, "field    value\nenabled  false\norigins  https://shop.example\nquotas   events=7/day\n", out)
		out, _, err = s.run(t, "project", "show", token, "--output", "json")
		require.NoError(t, err)
		var record api.Record
		require.NoError(t, json.Unmarshal([]byte(out), &record))
		require.Equal(t, token, record.Name)
		require.NotContains(t, out, "\x1b")
		out, _, err = s.run(t, "project", "list")
		require.NoError(t, err)
		require.Contains(t, out, "false    events=7/day  -      -\n")
		require.NotContains(t, out, "\x1b")

		out, _, err = s.run(t, "project", "delete", token)
		require.NoError(t, err)
		require.Equal(t, "- enabled=false\n- origins=https://shop.example\n- quotas=events=7/day\n", out)
		out, _, err = s.run(t, "project", "list", "--output", "json")
		require.NoError(t, err)
		require.Empty(t, out)
		for _, command := range []string{"show", "delete"} {
			_, _, err = s.run(t, "project", command, token)
			require.ErrorContains(t, err, "the shared store has no project")
		}
		require.Equal(t, 6, strings.Count(s.audited.String(), "\n"), "three changes")
	}
}

func TestAProjectThatIsSetWronglyIsNotChanged(t *testing.T) {
	s := start(t)
	var misuse *module.MisuseError
	for word, fault := range map[string]string{
		"nmae=x": `a project has no field "nmae": did you mean name?`, "xyz=x": "it has id, name, enabled",
		"name": "FIELD=VALUE",
	} {
		_, _, err := s.run(t, "project", "set", "phc_a", word)
		require.ErrorAs(t, err, &misuse)
		require.ErrorContains(t, err, fault)
	}
	_, _, err := s.run(t, "project", "set", "phc_a", "name=a", "name=b")
	require.ErrorContains(t, err, "name is given twice")
	_, _, err = s.run(t, "project", "set", "phc_a", "enabled=yes", "zone=Mars")
	require.ErrorAs(t, err, &misuse, "the command line is wrong, and not the service")
	require.ErrorContains(t, err, "enabled: must be true or false")
	require.ErrorContains(t, err, "; ")
	for token, fault := range map[string]string{
		"": "", "phx_personal": "personal_api_key", " a": "white space", strings.Repeat("a", 65): "too_long",
		"ü": "not_ascii",
	} {
		for _, words := range [][]string{
			{"project", "set", token, "name=a"}, {"project", "show", token}, {"project", "delete", token},
			{"quota", "show", token}, {"quota", "set", token, "events=1/day"}, {"quota", "reset", token, "events/day"},
			{"quota", "delete", token, "events/day"},
		} {
			_, _, err := s.run(t, words...)
			require.ErrorAs(t, err, &misuse, words)
			require.ErrorContains(t, err, fault)
		}
	}
	names, err := s.List(t.Context(), project.Kind, "", 10)
	require.NoError(t, err)
	require.Empty(t, names)

	// The same by the API, which the commands are not the only ones to call.
	status, text, _ := s.ask(t, "PUT", "/admin/projects/phc_a", `{"fields":{"enabled":"yes","zone":"Mars"}}`,
		"If-None-Match", "*")
	require.Equal(t, 422, status)
	var problem api.Problem
	require.NoError(t, json.Unmarshal([]byte(text), &problem))
	require.Len(t, problem.Faults, 3)
	require.Empty(t, s.audited.String())
}

func TestARecordWithFaultsIsShownWithThem(t *testing.T) {
	s := start(t)
	require.NoError(t, s.Put(t.Context(), project.Kind, "phc_a", nil, store.Fields{"enabled": "yes"}))
	_, hints, err := s.run(t, "project", "show", "phc_a")
	require.NoError(t, err)
	require.Contains(t, hints, "the record has faults, and the service does not use it as it is: enabled: must be true")
	out, _, err := s.run(t, "project", "list")
	require.NoError(t, err)
	require.Contains(t, out, "enabled: must be true or false")
	status, text, _ := s.ask(t, "GET", "/admin/projects/phc_a/quotas", "")
	require.Equal(t, 409, status)
	require.Contains(t, text, "the record of the project has faults")
	out, hints, err = s.run(t, "quota", "list")
	require.NoError(t, err)
	require.Contains(t, hints, "the limits of phc_a are not known")
	require.Equal(t, 1, strings.Count(out, "\n"))
	out, _, err = s.run(t, "project", "set", "phc_a", "enabled=true")
	require.NoError(t, err)
	require.Equal(t, "- enabled=yes\n+ enabled=true\n", out)
}

func TestQuotasAreShownSetAndTakenAway(t *testing.T) {
	s := start(t)
	s.used["phc_a events/day"] = 40
	out, hints, err := s.run(t, "quota", "show", "phc_a")
	require.NoError(t, err)
	require.Equal(t, "token  quota           used  held  remaining  resets\n"+
		"phc_a  events=100/day  40    1     61         2026-12-01T00:00:00Z\n", out)
	require.Contains(t, hints, "no limits of its own")
	require.Contains(t, hints, "rates: events=5/s burst=50; over a rate: overflow")

	// Who sets one quota does not lose the limits that held before.
	out, hints, err = s.run(t, "quota", "set", "phc_a", "recordings=5/month", "events=200/day")
	require.NoError(t, err)
	require.Contains(t, out, "events=200/day")
	require.Contains(t, out, "recordings=5/month")
	require.NotContains(t, hints, "no limits of its own")
	fields, err := s.Get(t.Context(), project.Kind, "phc_a")
	require.NoError(t, err)
	require.Equal(t, store.Fields{
		"enabled": "true", "quotas": "events=200/day, recordings=5/month", "rates": "events=5/s burst=50",
	}, fields)

	out, _, err = s.run(t, "quota", "list", "--output", "json")
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(out, "\n"))
	require.Contains(t, out, `{"token":"phc_a","resource":"events","period":"day","limit":200,"used":40,"held":1,`)
	_, _, err = s.run(t, "quota", "delete", "phc_a", "events/month")
	require.ErrorContains(t, err, "no quota of events per month: it has events=200/day, recordings=5/month")
	for _, quota := range []string{"events/day", "recordings/month"} {
		_, _, err = s.run(t, "quota", "delete", "phc_a", quota)
		require.NoError(t, err)
	}
	fields, err = s.Get(t.Context(), project.Kind, "phc_a")
	require.NoError(t, err)
	require.Equal(t, "none", fields["quotas"], "the defaults do not come back by themselves")
	_, text, _ := s.ask(t, "GET", "/admin/projects/phc_a/quotas", "")
	require.Contains(t, text, `"own":true`)
	require.Contains(t, text, `"quotas":[]`)
	require.Equal(t, 8, strings.Count(s.audited.String(), "\n"), "four changes")
}

func TestUsedQuotaIsGivenBack(t *testing.T) {
	s := start(t)
	s.used["phc_a events/day"] = 40
	out, _, err := s.run(t, "quota", "refund", "phc_a", "events/day", "--events", "30")
	require.NoError(t, err)
	require.Contains(t, out, "events=100/day  10    1     91")
	out, _, err = s.run(t, "quota", "reset", "phc_a", "events/day", "--output", "json")
	require.NoError(t, err)
	require.Contains(t, out, `"used":1,"held":1,"remaining":100`)
	require.Regexp(t, `"step":"begin".*"path":"/admin/projects/phc_a/quotas/events/day/refund","kind":"quota",`+
		`"name":"phc_a events/day","before":{.*"used":40.*},"asked":{"events":30}}`, s.audited.String())
	require.Regexp(t, `"step":"end","kind":"quota","name":"phc_a events/day","after":{.*"used":10.*},"result":"done"`,
		s.audited.String())

	var misuse *module.MisuseError
	for _, words := range [][]string{
		{"refund", "phc_a", "events/day"}, {"reset", "phc_a", "events"}, {"reset", "phc_a", "event/day"},
		{"reset", "phc_a", "events/week"}, {"set", "phc_a", "events=1"}, {"delete", "phc_a", "x"},
		{"set", "phc_a", "events=1/day", "events=2/day"},
	} {
		_, _, err := s.run(t, append([]string{"quota"}, words...)...)
		require.ErrorAs(t, err, &misuse, words)
	}
	for path, test := range map[string]struct {
		body   string
		status int
	}{
		"/events/day/refund":   {`{"events":0}`, 422},
		"/events/month/refund": {`{"events":1}`, 404},
		"/event/day/refund":    {`{"events":1}`, 400},
		"/events/week/reset":   {"", 400},
		"/events/hour/reset":   {"", 404},
		"/events/day/reset":    {`{"events":5}`, 400},
	} {
		status, text, _ := s.ask(t, "POST", "/admin/projects/phc_a/quotas"+path, test.body)
		require.Equal(t, test.status, status, "%s: %s", path, text)
	}
	status, _, _ := s.ask(t, "PUT", "/admin/projects/phc_a/quotas/events/day", `{}`, "If-None-Match", "*")
	require.Equal(t, 422, status)
	status, text, _ := s.ask(t, "PUT", "/admin/projects/phc_a/quotas/events/day", `{"limit":-1}`, "If-None-Match", "*")
	require.Equal(t, 422, status)
	require.Contains(t, text, "limit must be a whole number that is not negative")
	status, _, _ = s.ask(t, "PUT", "/admin/projects/phc_a/quotas/events/day", `{"limit":1}`)
	require.Equal(t, 428, status)
	status, _, tag := s.ask(t, "PUT", "/admin/projects/phc_a/quotas/events/day", `{"limit":1}`, "If-None-Match", "*")
	require.Equal(t, 200, status)
	require.NotEmpty(t, tag)
	status, _, _ = s.ask(t, "DELETE", "/admin/projects/phc_a/quotas/events/day", "", "If-Match", `"x"`)
	require.Equal(t, 412, status)
	status, _, _ = s.ask(t, "DELETE", "/admin/projects/phc_a/quotas/events/day", "", "If-Match", tag)
	require.Equal(t, 200, status)

	s.fail = store.ErrUnavailable
	_, _, err = s.run(t, "quota", "show", "phc_a")
	require.ErrorContains(t, err, "the store does not answer")
}

func TestAProjectInAFileIsChangedThere(t *testing.T) {
	s := start(t)
	record, err := project.Parse(store.Fields{"quotas": "events=3/hour"})
	require.NoError(t, err)
	s.filed["phc_a"] = &record
	for _, words := range [][]string{
		{"project", "set", "phc_a", "name=x"}, {"quota", "set", "phc_a", "events=1/day"},
		{"quota", "delete", "phc_a", "events/hour"},
	} {
		_, _, err := s.run(t, words...)
		require.ErrorContains(t, err, `the project "phc_a" stands in a file of auth.projects`, words)
	}
	status, text, _ := s.ask(t, "DELETE", "/admin/projects/phc_a", "", "If-Match", "*")
	require.Equal(t, 409, status, text)
	out, hints, err := s.run(t, "quota", "show", "phc_a")
	require.NoError(t, err)
	require.Contains(t, out, "events=3/hour")
	require.Empty(t, hints)
	_, _, err = s.run(t, "quota", "refund", "phc_a", "events/hour", "--events", "1")
	require.NoError(t, err)
}

func TestARestrictionIsSetAndSendsEventsOnlyToTopicsThatThereAre(t *testing.T) {
	s := start(t)
	out, _, err := s.run(t, "restriction", "set", "vip-users", "token=phc_a", "action=topic", "topic=vip",
		`distinct_ids="a, b", c`)
	require.NoError(t, err)
	require.Equal(t, "+ token=phc_a\n+ action=topic\n+ topic=vip\n+ distinct_ids=\"a, b\", c\n", out)
	fields, err := s.Get(t.Context(), restriction.Kind, "vip-users")
	require.NoError(t, err)
	require.Equal(t, store.Fields{
		"token": "phc_a", "action": "topic", "topic": "vip", "distinct_ids": `"a, b", c`,
	}, fields)
	out, _, err = s.run(t, "restriction", "list")
	require.NoError(t, err)
	require.Contains(t, out, "vip-users  phc_a  topic   vip")
	_, _, err = s.run(t, "restriction", "set", "vip-users", "topic=elsewhere")
	require.ErrorContains(t, err, `topic: "elsewhere" is none of kafka.topics: add it to kafka.topics.custom`)
	_, _, err = s.run(t, "restriction", "set", "vip-users", "action=vanish", "topic=")
	require.ErrorContains(t, err, "action: must be one of drop, overflow")
	_, _, err = s.run(t, "restriction", "set", "no spaces", "token=phc_a", "action=drop")
	require.ErrorContains(t, err, "the name of a rule must be")
	var misuse *module.MisuseError
	require.ErrorAs(t, err, &misuse)
	out, _, err = s.run(t, "restriction", "set", "vip-users", "action=drop", "topic=")
	require.NoError(t, err)
	require.Equal(t, "- action=topic\n+ action=drop\n- topic=vip\n", out)
	_, _, err = s.run(t, "restriction", "delete", "vip-users")
	require.NoError(t, err)
	require.Equal(t, 6, strings.Count(s.audited.String(), `"kind":"rule"`), "three changes")
}

func TestAListGoesOnBehindItsFirstPage(t *testing.T) {
	s := start(t)
	for i := range 1001 {
		require.NoError(t, s.Put(t.Context(), project.Kind, fmt.Sprint("phc_", i), nil, store.Fields{"id": "1"}))
	}
	out, _, err := s.run(t, "project", "list", "--output", "json")
	require.NoError(t, err)
	require.Equal(t, 1001, strings.Count(out, "\n"))
}

// Between a command's look at a record and its change, somebody else changes the record.
func TestACommandChangesNothingThatItHasNotSeen(t *testing.T) {
	for _, words := range [][]string{
		{"project", "set", "phc_a", "name=x"}, {"project", "delete", "phc_a"},
		{"quota", "set", "phc_a", "events=1/day"}, {"quota", "delete", "phc_a", "events/hour"},
	} {
		for _, there := range []bool{true, false} {
			s := start(t)
			s.all = events.Limits{Quotas: []events.Quota{{Period: events.PerHour, Limit: 5}}}
			var before store.Fields
			if there {
				before = store.Fields{"name": "before", "quotas": "events=5/hour"}
				require.NoError(t, s.Put(t.Context(), project.Kind, "phc_a", nil, before))
			} else if words[1] == "delete" {
				continue
			}
			after := store.Fields{"name": "of somebody else", "quotas": "events=5/hour"}
			s.before = func(r *http.Request) {
				if r.Method != http.MethodGet {
					assert.NoError(t, s.Put(context.Background(), project.Kind, "phc_a", before, after))
				}
			}
			_, _, err := s.run(t, words...)
			require.ErrorContains(t, err, "somebody else has changed it meanwhile, and nothing was done", words)
			fields, err := s.Get(t.Context(), project.Kind, "phc_a")
			require.NoError(t, err)
			require.Equal(t, after, fields)
		}
	}
}

func TestWhoWasNotFastestIsTold(t *testing.T) {
	require.EqualError(t, explained(api.Problemf(412, "x")),
		"somebody else has changed it meanwhile, and nothing was done: look at it, and do it again")
	require.EqualError(t, explained(api.Problemf(503, "later")), "later")
	require.ErrorIs(t, explained(context.Canceled), context.Canceled)
}
