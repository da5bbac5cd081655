package testkit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/usage"
	"github.com/opencapture/capture/testkit"
)

// usageRows returns all rows, and fails the test if a row does not add up.
func usageRows(t testing.TB, service *testkit.Service) (rows []usage.Row) {
	t.Helper()
	for query := "?from=2000-01-01&limit=3"; ; {
		got := service.Admin("/admin/usage" + query)
		if got.Status != 200 {
			t.Errorf("%d: %s", got.Status, got.Body)
			return nil
		}
		var page api.Page[usage.Row]
		if err := json.Unmarshal([]byte(got.Body), &page); err != nil {
			t.Error(err)
			return nil
		}
		for i := range page.Items {
			row := &page.Items[i]
			ended := row.Accepted
			for _, reasons := range []map[string]uint64{row.Dropped, row.Rejected, row.Failed} {
				for _, n := range reasons {
					ended += n
				}
			}
			if row.Received != ended {
				t.Errorf("%d received, %d ended: %+v", row.Received, ended, row)
			}
		}
		rows = append(rows, page.Items...)
		if page.Next == "" {
			return rows
		}
		query = "?from=2000-01-01&limit=3&after=" + page.Next
	}
}

// sums adds up rows by "state" and "state reason".
func sums(rows []usage.Row) map[string]uint64 {
	sums := map[string]uint64{}
	for _, row := range rows {
		sums["received"] += row.Received
		sums["accepted"] += row.Accepted
		sums["duplicates"] += row.Duplicates
		for state, reasons := range map[string]map[string]uint64{
			"dropped": row.Dropped, "rejected": row.Rejected, "failed": row.Failed,
		} {
			for reason, n := range reasons {
				sums[state+" "+reason] += n
			}
		}
	}
	return sums
}

var ledgerLine = regexp.MustCompile(`(?m)^capture_events_(\w+)_total(?:\{reason="(\w+)"\})? (\d+)$`)

// ledgerSums returns what the metrics say of all events, in the form of sums.
func ledgerSums(t *testing.T, service *testkit.Service) map[string]uint64 {
	t.Helper()
	sums := map[string]uint64{}
	for _, line := range ledgerLine.FindAllStringSubmatch(service.Admin("/metrics").Body, -1) {
		n, err := strconv.ParseUint(line[3], 10, 64)
		require.NoError(t, err)
		sums[strings.TrimSpace(line[1]+" "+line[2])] = n
	}
	return sums
}

// troubled is a stage that fails, panics, adds events and panics in its settlement, each now and then.
type troubled struct{ n atomic.Int64 }

func (*troubled) Phase() events.Phase { return events.PhasePlugins }
func (*troubled) Name() string        { return "troubled" }

func (s *troubled) Process(_ context.Context, batch *events.Batch) (events.Settle, error) {
	switch s.n.Add(1) % 7 {
	case 0:
		panic("a stage")
	case 1:
		return nil, events.Errorf(events.Unavailable, "a stage fails")
	case 2:
		return func(context.Context, *events.Batch) { panic("a settlement") }, nil
	case 3:
		for i := range batch.Events {
			batch.Events[i].AcceptDuplicate()
		}
	case 4:
		batch.Events = append(batch.Events, events.Event{Name: "added", DistinctID: "u"})
	case 5:
		batch.Events = batch.Events[:len(batch.Events)-1]
	}
	return nil, nil
}

// strict is a gate that does not know some tokens.
type strict struct{}

func (strict) Phase() events.Phase { return events.PhaseAuth }
func (strict) Name() string        { return "strict" }

func (strict) Admit(_ context.Context, caller *events.Caller) error {
	if strings.HasPrefix(caller.Token, "phc_bad") {
		return events.Errorf(events.Unauthorized, "unknown")
	}
	if strings.HasPrefix(caller.Token, "phc_known") {
		caller.Project = &events.Project{}
	}
	return nil
}

// Whatever fails, every event is in the rows exactly once, and every row adds up at any moment.
func TestUsageHasEveryEventOfTheLedgerWhateverFails(t *testing.T) {
	sink := testkit.NewSink()
	trouble := module.Module{Name: "trouble", Options: fx.Provide(
		events.AsStage(func() *troubled { return &troubled{} }), events.AsGate(func() strict { return strict{} }),
	)}
	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.With(trouble),
		testkit.Set("usage.max_tokens", "5"), testkit.Set("usage.save_every", "10ms"))
	var clients, reader sync.WaitGroup
	done := make(chan struct{})
	reader.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				usageRows(t, service)
			}
		}
	})
	for worker := range uint64(4) {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(worker, 5))
			for range 150 {
				tokens := []string{"phc_known1", "phc_known2", "phc_bad", "phc_3", fmt.Sprint("phc_r", random.IntN(40))}
				token := tokens[random.IntN(len(tokens))]
				body := `{"event":"a","distinct_id":"u"},{"event":"$exception","distinct_id":"u"},{"distinct_id":"u"}`
				if random.IntN(10) == 0 {
					sink.FailNext(1)
				}
				if random.IntN(10) == 0 {
					sink.Next(func(*events.Event) { panic("the sink") })
				}
				if random.IntN(20) == 0 {
					token = ""
				}
				path := []string{"/batch/", "/test/black_hole"}[random.IntN(2)]
				_, err := service.TryRequest("POST", path, `{"api_key":"`+token+`","batch":[`+body+`]}`)
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	close(done)
	reader.Wait()
	rows := usageRows(t, service)
	require.Equal(t, ledgerSums(t, service), sums(rows))
	groups := map[string]bool{}
	for _, row := range rows {
		groups[row.Group] = true
	}
	require.Equal(t, map[string]bool{"": true, usage.GroupOthers: true, usage.GroupNoToken: true}, groups)
	for _, name := range []string{
		"accepted", "duplicates", "dropped black_hole", "rejected not_admitted", "rejected missing_event_name",
		"failed stage_failed", "failed sink_unavailable", "failed unsettled",
	} {
		require.Positive(t, sums(rows)[name], name)
	}
}

func TestUsageOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	service := testkit.Start(t, testkit.Set("usage.dir", dir+"/usage"))
	service.Post("/batch/", `{"api_key":"phc_a","batch":[{"event":"a","distinct_id":"u"},{"distinct_id":"u"}]}`)
	before := usageRows(t, service)
	require.Len(t, before, 1)
	require.Equal(t, map[string]uint64{"missing_event_name": 1}, before[0].Rejected)
	require.NoError(t, service.Stop())
	service = testkit.Start(t, testkit.Set("usage.dir", dir+"/usage"))
	require.Equal(t, before, usageRows(t, service))
	got := service.Admin("/admin/usage?token=phc_b")
	require.JSONEq(t, `{"items":[]}`, got.Body)
	got = service.Admin("/admin/usage?resource=events&token=phc_a")
	require.Contains(t, got.Body, `"token":"phc_a"`)
	for _, query := range []string{"resource=logs", "from=2000-01-01&to=2000-12-31", "from=2999-01-01"} {
		require.JSONEq(t, `{"items":[]}`, service.Admin("/admin/usage?"+query).Body, query)
	}
	for query, detail := range map[string]string{
		"resource=x": "resource must be one of", "group=x": "group must be one of",
		"from=2026-13-01": "from must be a day", "to=1": "to must be a day", "tokn=x": "did you mean token?",
		"from=2026-01-02&to=2026-01-01": "to must not be before from",
	} {
		got := service.Admin("/admin/usage?" + query)
		require.Equal(t, 400, got.Status, query)
		require.Contains(t, got.Body, detail)
	}
}

func TestTheCommandUsageShowsWhatWasSent(t *testing.T) {
	t.Parallel()
	p := run(t)
	code, _, errs := p.beside(t, "send", "--token", "phc_test", "--event", "a", "--distinct-id", "u")
	require.Zero(t, code, errs)
	code, out, errs := p.beside(t, "usage", "--server", p.admin)
	require.Zero(t, code, errs)
	require.Regexp(t, `^day +token +resource  received  accepted  duplicates  dropped  rejected  failed\n`+
		`\d{4}-\d\d-\d\d  phc_test  events    1         1         0           0        0         0\n$`, out)
	code, out, errs = p.beside(t, "usage", "--server", p.admin, "--output", "json", "--token", "phc_test")
	require.Zero(t, code, errs)
	var row usage.Row
	require.NoError(t, json.Unmarshal([]byte(out), &row))
	require.Equal(t, uint64(1), row.Accepted)
	code, out, errs = p.beside(t, "usage", "--server", p.admin, "--resource", "logs")
	require.Zero(t, code, errs)
	require.Equal(t, 1, strings.Count(out, "\n"))
	for want, args := range map[string][]string{
		"is `capture serve` running there?": {"--server", "127.0.0.1:1"},
		"admin.listen has port 0":           {},
	} {
		code, _, errs := p.beside(t, append([]string{"usage"}, args...)...)
		require.Equal(t, 1, code)
		require.Contains(t, errs, want)
	}
	for want, args := range map[string][]string{
		"--resource must be events or":     {"--resource", "log"},
		"--from must be a day such as":     {"--from", "yesterday"},
		"--to must not be before --from":   {"--from", "2026-11-30", "--to", "2026-11-29"},
		"--token is empty":                 {"--token", ""},
		"capture usage takes no arguments": {"phc_test"},
	} {
		code, _, errs := p.beside(t, append([]string{"usage", "--server", p.admin}, args...)...)
		require.Equal(t, 2, code)
		require.Contains(t, errs, want)
	}
}
