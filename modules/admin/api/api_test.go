package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server serves the endpoints of an API.
type server struct {
	mux     *http.ServeMux
	audited *bytes.Buffer
	logs    *observer.ObservedLogs
	audit   string // the path of the audit log; empty: audited
}

func newServer(t *testing.T, endpoints func(*api.API) []endpoint.Endpoint) *server {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	s := &server{mux: http.NewServeMux(), audited: &bytes.Buffer{}, logs: logs}
	auditLog := audit.New(func() string { return s.audit }, s.audited, zap.NewNop(), tally.NoopScope.Counter("x"))
	t.Cleanup(auditLog.Close)
	for _, e := range endpoints(api.New(auditLog, zap.New(core))) {
		s.mux.Handle(e.Pattern, e.Handler)
	}
	return s
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (s *server) ask(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.Body = http.MaxBytesReader(w, r.Body, 2000)
	s.mux.ServeHTTP(w, r)
	got := w.Result()
	text, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	require.NoError(t, got.Body.Close())
	return answer{got.StatusCode, got.Header, string(text)}
}

func (a answer) problem(t *testing.T, status int) api.Problem {
	t.Helper()
	require.Equal(t, status, a.status, a.body)
	require.Equal(t, api.TypeProblem, a.header.Get("Content-Type"))
	require.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
	var p api.Problem
	require.NoError(t, json.Unmarshal([]byte(a.body), &p))
	require.Equal(t, status, p.Status)
	require.Equal(t, api.URN(status), p.Type)
	require.NotEmpty(t, p.Title)
	require.NotEmpty(t, p.Detail)
	return p
}

func (a answer) record(t *testing.T, status int) (r api.Record) {
	t.Helper()
	require.Equal(t, status, a.status, a.body)
	require.Equal(t, "application/json", a.header.Get("Content-Type"))
	require.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
	require.Equal(t, "no-store", a.header.Get("Cache-Control"), "nobody shows a record that has changed")
	require.NoError(t, json.Unmarshal([]byte(a.body), &r))
	require.Equal(t, r.ETag, a.header.Get("ETag"))
	return r
}

// shelves is a collection whose records have the one field "books", a word.
func shelves(records store.Records) *api.Collection {
	return &api.Collection{
		Kind: "shelf", Things: "shelves", Path: "/admin/shelves", Name: "shelf", About: "The shelf's name.",
		Records: records,
		CheckName: func(name string) error {
			if strings.ContainsRune(name, '!') {
				return errors.New("must not be loud")
			}
			return nil
		},
		Check: func(_ string, fields store.Fields) (store.Fields, error) {
			var faults configs.Faults
			for name, value := range fields {
				faults.Check(name == "books" || name == "secret", name, "is no field of a shelf")
				faults.Check(value != "", name, "must not be empty")
			}
			faults.Check(len(fields) > 0, "books", "is missing")
			return fields, faults.Err()
		},
	}
}

func newRecords(t *testing.T) *local.Store {
	t.Helper()
	s := local.New(local.Config{}, zap.NewNop(), tally.NoopScope)
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
	return s
}

func TestARecordIsMadeSeenChangedAndRemoved(t *testing.T) {
	s := newServer(t, func(a *api.API) []endpoint.Endpoint { return shelves(newRecords(t)).Endpoints(a) })
	got := s.ask(t, "PUT", "/admin/shelves/a%2Fb%7B", `{"fields":{"books":"ten","secret":"hunter2"}}`,
		"If-None-Match", "*", "Content-Type", "application/json; charset=utf-8")
	made := got.record(t, 201)
	require.Equal(t, "/admin/shelves/a%2Fb%7B", got.header.Get("Location"))
	require.Equal(t, "a/b{", made.Name)
	require.Regexp(t, `^"[0-9a-f]{32}"$`, made.ETag)
	require.Equal(t, made, s.ask(t, "GET", got.header.Get("Location"), "").record(t, 200))

	// Who has not seen the record does not overwrite it.
	change := func(header ...string) answer {
		return s.ask(t, "PUT", "/admin/shelves/a%2Fb%7B", `{"name":"a/b{","fields":{"books":"eleven"}}`, header...)
	}
	require.Contains(t, change().problem(t, 428).Detail, "give If-Match")
	require.Contains(t, change("If-None-Match", "*").problem(t, 412).Detail, made.ETag)
	require.Contains(t, change("If-Match", `"other"`).problem(t, 412).Detail, made.ETag)
	change("If-Match", "*", "If-None-Match", "*").problem(t, 400)
	change("If-None-Match", made.ETag).problem(t, 400)
	changed := change("If-Match", `"other", `+made.ETag).record(t, 200)
	require.Equal(t, map[string]string{"books": "eleven"}, changed.Fields, "all fields are replaced")
	change("If-Match", made.ETag).problem(t, 412)
	require.Equal(t, changed, change("If-Match", "*").record(t, 200))

	remove := func(header ...string) answer { return s.ask(t, "DELETE", "/admin/shelves/a%2Fb%7B", "", header...) }
	remove().problem(t, 428)
	remove("If-Match", made.ETag).problem(t, 412)
	gone := remove("If-Match", changed.ETag)
	require.Equal(t, 204, gone.status)
	require.Empty(t, gone.body)
	remove("If-Match", "*").problem(t, 404)
	require.Contains(t, change("If-Match", "*").problem(t, 412).Detail, "give If-None-Match: * to make it")
	require.Contains(t, s.ask(t, "GET", "/admin/shelves/a%2Fb%7B", "").problem(t, 404).Detail, `no shelf "a/b{"`)

	// The audit log has what was changed, and no secret.
	var steps []string
	for line := range strings.Lines(s.audited.String()) {
		var one struct {
			Step, Kind, Name string
			Before, After    map[string]string
			Result           string
		}
		require.NoError(t, json.Unmarshal([]byte(line), &one))
		require.Equal(t, "shelf a/b{", one.Kind+" "+one.Name)
		steps = append(steps, one.Step+" "+one.Before["books"]+">"+one.After["books"]+one.After["secret"]+" "+
			one.Result)
	}
	require.Equal(t, []string{
		"begin >ten****** ", "end > done", "begin ten>eleven ", "end > done",
		"begin eleven> ", "end > done",
	}, steps)
}

func TestAFaultyRequestChangesNothingAndSaysWhatToDo(t *testing.T) {
	records := newRecords(t)
	s := newServer(t, func(a *api.API) []endpoint.Endpoint { return shelves(records).Endpoints(a) })
	for body, want := range map[string]struct {
		status int
		detail string
	}{
		``:                            {400, "the body is empty"},
		`{`:                           {400, "cannot be read as JSON"},
		`[]`:                          {400, "must be an object"},
		`{"fields":{"books":"a"}} {}`: {400, "something follows"},
		`{"field":{"books":"a"}}`:     {400, `there is no field "field": did you mean fields?`},
		`{"xyz":1}`:                   {400, `there is no field "xyz": there is name, fields`},
		`{"fields":{"books":7}}`:      {400, `the field "books" must be a text, as "true" and "a, b" are, got 7`},
		`{"fields":{"books":null}}`:   {400, "must be a text"},
		`{"fields":["books"]}`:        {400, `fields must be an object of texts, got ["books"]`},
		`{"fields":null}`:             {400, "fields must be an object of texts"},
		`{"name":7}`:                  {400, "name must be a text, got a JSON number"},
		`null`:                        {400, "the body must be an object, got null"},
		`{}`:                          {400, "the body must have fields"},
		`{"name":"a"}`:                {400, "the body must have fields"},
		`{"Fields":{"books":"a"}}`:    {400, `there is no field "Fields": did you mean fields?`},
		`{"fields":{"books":"a"},"fields":{"books":"b"}}`: {400, `the field "fields" stands in the body twice`},
		`{"fields":{"books":"a","books":"b"}}`:            {400, `the field "books" stands in the body twice`},
		"{\"fields\":{\"books\":\"\xff\"}}":               {400, "must be UTF-8"},
		`{"fields":"` + strings.Repeat("x", 100) + `"}`:   {400, `xxx...`},
		`{"name":"b","fields":{}}`:                        {400, `the body names "b", and the path "a"`},
		`{"fields":{}}`:                                   {422, "mend the fields"},
		strings.Repeat(" ", 2001) + "{}":                  {413, "at most 2000 bytes"},
		`{"fields":{"paper":"","x":"y"}}`:                 {422, "mend the fields"},
	} {
		got := s.ask(t, "PUT", "/admin/shelves/a", body, "If-None-Match", "*").problem(t, want.status)
		require.Contains(t, got.Detail, want.detail, body)
		if want.status == 422 {
			require.NotEmpty(t, got.Faults)
		}
	}
	s.ask(t, "PUT", "/admin/shelves/a", "x=y", "Content-Type", "application/x-www-form-urlencoded").problem(t, 415)
	require.Contains(t, s.ask(t, "GET", "/admin/shelves/a!", "").problem(t, 400).Detail, "must not be loud")
	for query, detail := range map[string]string{
		"limit=0": "from 1 to 1000", "limit=1001": "from 1 to 1000", "limit=x": "from 1 to 1000",
		"limits=5": "did you mean limit?", "xyz=5": "there is limit, after", "limit=1&limit=2": "2 times",
		"after=!": "next of the page before", "after=AAAA": "next of the page before", "limit=%zz": "cannot be read",
	} {
		require.Contains(t, s.ask(t, "GET", "/admin/shelves?"+query, "").problem(t, 400).Detail, detail, query)
	}
	require.Contains(t, s.ask(t, "GET", "/admin/shelves/a?x=y", "").problem(t, 400).Detail, `of the query "x"`)
	names, err := records.List(t.Context(), "shelf", "", 10)
	require.NoError(t, err)
	require.Empty(t, names)
	require.Empty(t, s.audited.String())
}

func TestAListComesInPagesAndShowsFaultsOfRecordsWrittenByHand(t *testing.T) {
	records := newRecords(t)
	s := newServer(t, func(a *api.API) []endpoint.Endpoint { return shelves(records).Endpoints(a) })
	for _, name := range []string{"a", "b", "c\n", "d", "e"} {
		require.NoError(t, records.Put(t.Context(), "shelf", name, nil, store.Fields{"books": name}))
	}
	require.NoError(t, records.Put(t.Context(), "shelf", "f", nil, store.Fields{"paper": "x"}))
	var names []string
	query := "?limit=2"
	for pages := 1; ; pages++ {
		got := s.ask(t, "GET", "/admin/shelves"+query, "")
		require.Equal(t, 200, got.status)
		var page api.Page[api.Record]
		require.NoError(t, json.Unmarshal([]byte(got.body), &page))
		for _, record := range page.Items {
			names = append(names, record.Name)
			require.Equal(t, record.Name == "f", len(record.Faults) > 0)
		}
		if page.Next == "" {
			require.Equal(t, 3, pages)
			break
		}
		query = "?limit=2&after=" + page.Next
	}
	require.Equal(t, []string{"a", "b", "c\n", "d", "e", "f"}, names)
	broken := s.ask(t, "GET", "/admin/shelves/f", "").record(t, 200)
	require.Equal(t, []api.Fault{{Field: "paper", Message: "is no field of a shelf"}}, broken.Faults)
}

// away is a store that does not answer.
type away struct{ store.Records }

func (away) Get(context.Context, string, string) (store.Fields, error) {
	return nil, store.ErrUnavailable
}

func (away) List(context.Context, string, string, int) ([]string, error) {
	return nil, store.ErrUnavailable
}

// raced is a store in which somebody else changes every record just before.
type raced struct{ store.Records }

func (raced) Put(context.Context, string, string, store.Fields, store.Fields) error {
	return store.ErrConflict
}

// vanishing is a store from which a record is removed between a list and the look at the record.
type vanishing struct {
	store.Records

	name string
}

func (v vanishing) Get(ctx context.Context, kind, name string) (store.Fields, error) {
	if name == v.name {
		return store.Fields{}, nil
	}
	return v.Records.Get(ctx, kind, name)
}

func TestAListLeavesOutWhatWasRemovedMeanwhile(t *testing.T) {
	records := newRecords(t)
	for _, name := range []string{"a", "b", "c"} {
		require.NoError(t, records.Put(t.Context(), "shelf", name, nil, store.Fields{"books": name}))
	}
	s := newServer(t, func(a *api.API) []endpoint.Endpoint { return shelves(vanishing{records, "b"}).Endpoints(a) })
	var page api.Page[api.Record]
	require.NoError(t, json.Unmarshal([]byte(s.ask(t, "GET", "/admin/shelves", "").body), &page))
	require.Len(t, page.Items, 2)
	require.Equal(t, "c", page.Items[1].Name)
}

// A change that has begun is made and noted, also if the client leaves.
func TestAChangeIsMadeAlthoughTheClientHasLeft(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	s := newServer(t, func(a *api.API) []endpoint.Endpoint {
		return []endpoint.Endpoint{a.Endpoint(api.Operation{
			Pattern: "POST /change", Handle: func(call *api.Call) (*api.Answer, error) {
				return &api.Answer{Status: 204}, call.Change(audit.Subject{Kind: "x"}, func(ctx context.Context) error {
					leave()
					return ctx.Err()
				})
			},
		})}
	})
	w := httptest.NewRecorder()
	s.mux.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", "/change", nil))
	require.Equal(t, 204, w.Code, w.Body)
	require.Contains(t, s.audited.String(), `"step":"end","kind":"x","result":"done"`)
}

func TestEveryOperationIsDescribedWithItsProblems(t *testing.T) {
	for _, e := range shelves(newRecords(t)).Endpoints(api.New(nil, zap.NewNop())) {
		statuses := map[int]bool{}
		for _, a := range e.Operation.Answers {
			statuses[a.Status] = true
		}
		require.True(t, statuses[400], e.Pattern)
		require.True(t, statuses[503], e.Pattern)
		require.Equal(t, strings.HasPrefix(e.Pattern, "PUT "), statuses[413] && statuses[415], e.Pattern)
	}
}

func TestWhatKeepsAChangeFromBeingMadeIsTold(t *testing.T) {
	put := func(s *server) answer {
		return s.ask(t, "PUT", "/admin/shelves/a", `{"fields":{"books":"a"}}`, "If-None-Match", "*")
	}
	s := newServer(t, func(a *api.API) []endpoint.Endpoint { return shelves(away{}).Endpoints(a) })
	for _, got := range []answer{
		put(s), s.ask(t, "GET", "/admin/shelves/a", ""), s.ask(t, "GET", "/admin/shelves", ""),
	} {
		require.Contains(t, got.problem(t, 503).Detail, "the store does not answer")
		require.Equal(t, "1", got.header.Get("Retry-After"))
	}
	s = newServer(t, func(a *api.API) []endpoint.Endpoint { return shelves(raced{newRecords(t)}).Endpoints(a) })
	require.Contains(t, put(s).problem(t, 412).Detail, "the record has changed")
	require.Contains(t, s.audited.String(), `"result":"the shelf \"a\": the record has changed"`)

	records := newRecords(t)
	s = newServer(t, func(a *api.API) []endpoint.Endpoint { return shelves(records).Endpoints(a) })
	s.audit = filepath.Join(t.TempDir(), "none", "audit")
	require.Contains(t, put(s).problem(t, 503).Detail, "nothing was changed")
	fields, err := records.Get(t.Context(), "shelf", "a")
	require.NoError(t, err)
	require.Empty(t, fields)
}

func TestAnErrorThatIsNoProblemIsLoggedAndAPanicIsNoted(t *testing.T) {
	s := newServer(t, func(a *api.API) []endpoint.Endpoint {
		return []endpoint.Endpoint{
			a.Endpoint(api.Operation{Pattern: "GET /fails", Handle: func(*api.Call) (*api.Answer, error) {
				return nil, errors.New("a secret of the inside")
			}}),
			a.Endpoint(api.Operation{Pattern: "POST /panics", Handle: func(call *api.Call) (*api.Answer, error) {
				return nil, call.Change(audit.Subject{Kind: "x"}, func(context.Context) error { panic("boom") })
			}}),
			a.Endpoint(api.Operation{
				Pattern:    "GET /parameters",
				Parameters: []endpoint.Parameter{{In: endpoint.Query, Name: "must", Required: true, About: "Say it."}},
				Handle:     func(*api.Call) (*api.Answer, error) { return api.OK("fine"), nil },
			}),
		}
	})
	got := s.ask(t, "GET", "/fails", "").problem(t, 500)
	require.NotContains(t, got.Detail, "secret")
	require.Equal(t, "a secret of the inside", s.logs.All()[0].ContextMap()["error"])
	require.Panics(t, func() { s.ask(t, "POST", "/panics", "") })
	require.Contains(t, s.audited.String(), "the service panicked: nobody knows whether it was made")
	require.Equal(t, "must is missing in the query: Say it.", s.ask(t, "GET", "/parameters", "").problem(t, 400).Detail)
	require.Equal(t, "\"fine\"\n", s.ask(t, "GET", "/parameters?must=x", "").body)
}

func TestEveryKindOfProblemHasItsWord(t *testing.T) {
	seen := map[string]bool{}
	for _, status := range api.Statuses() {
		p := api.Problemf(status, "x")
		require.NotEmpty(t, p.Title)
		require.NotEqual(t, "urn:capture:problem:", p.Type)
		require.False(t, seen[p.Type], p.Type)
		seen[p.Type] = true
	}
}

// Nobody's change is lost, however many change a record at once.
func TestOfConcurrentChangesEachHoldsOrIsRefused(t *testing.T) {
	records := newRecords(t)
	s := newServer(t, func(a *api.API) []endpoint.Endpoint { return shelves(records).Endpoints(a) })
	require.NoError(t, records.Put(t.Context(), "shelf", "a", nil, store.Fields{"books": "0"}))
	server := httptest.NewServer(s.mux)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	do := func(method, body string, header ...string) (int, api.Record, error) {
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/admin/shelves/a",
			strings.NewReader(body))
		if err != nil {
			return 0, api.Record{}, err
		}
		for i := 0; i+1 < len(header); i += 2 {
			request.Header.Set(header[i], header[i+1])
		}
		got, err := client.Do(request)
		if err != nil {
			return 0, api.Record{}, err
		}
		defer func() { _ = got.Body.Close() }()
		var record api.Record
		return got.StatusCode, record, json.NewDecoder(got.Body).Decode(&record)
	}
	var refused atomic.Int64
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for done := 0; done < 10; {
				_, seen, err := do("GET", "")
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(seen.Fields["books"])
				status, _, _ := do("PUT", fmt.Sprintf(`{"fields":{"books":"%d"}}`, n+1), "If-Match", seen.ETag)
				switch status {
				case 200:
					done++
				case 412:
					refused.Add(1)
				default:
					t.Errorf("status %d", status)
					return
				}
			}
		})
	}
	workers.Wait()
	fields, err := records.Get(t.Context(), "shelf", "a")
	require.NoError(t, err)
	require.Equal(t, "80", fields["books"])
	t.Logf("%d changes were refused, and made again", refused.Load())
	require.Equal(t, 80, strings.Count(s.audited.String(), `"result":"done"`))
}
