package control

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

// quotas are the endpoints about the quotas of a project.
type quotas struct {
	records    store.Records
	files      project.Files
	allowances events.Allowances
}

// Limits is what a project may send.
type Limits struct {
	Token string `json:"token" doc:"The project's token."`
	Own   bool   `json:"own" doc:"Whether the project has limits of its own. Else those of the section quota hold for it."`
	Zone  string `json:"zone" doc:"The time zone whose calendar the quotas follow."`
	// The lists are never nil.
	Quotas    []Quota  `json:"quotas" doc:"How much the project may send in a period, and what it has sent."`
	Rates     []string `json:"rates" doc:"How fast the project may send."`
	UserRates []string `json:"user_rates" doc:"How fast each user of the project may send."`
	Over      string   `json:"over" doc:"What becomes of events over a rate." enum:"overflow,drop,reject"`
	Whole     bool     `json:"whole" doc:"Whether the events of a request pass only together."`
}

// Quota is how much a project may send in a period, and what it has sent.
type Quota struct {
	Resource  string    `json:"resource" doc:"The kind of events." enum:"events,recordings,exceptions,ai,logs,surveys"`
	Period    string    `json:"period" doc:"The length of the window." enum:"minute,hour,day,month"`
	Limit     int64     `json:"limit" doc:"How many events may pass in the window."`
	Used      int64     `json:"used" doc:"How many of them the nodes have taken."`
	Held      int64     `json:"held" doc:"How many of those the nodes hold and have not spent."`
	Remaining int64     `json:"remaining" doc:"How many events may still pass: the limit without what was used, and with what is held."`
	Start     time.Time `json:"start" doc:"When the window began."`
	Reset     time.Time `json:"reset" doc:"When the next window begins."`
}

// Limit is the body that sets a quota.
type Limit struct {
	Limit *int64 `json:"limit,omitempty" doc:"How many events may pass in the window. It must be given."`
}

// Refund is the body of a refund.
type Refund struct {
	Events *int64 `json:"events,omitempty" doc:"How many events are given back. A negative number takes them away. It must be given."`
}

const (
	limitsPath = "/admin/projects/{token}/quotas"
	quotaPath  = limitsPath + "/{resource}/{period}"
)

func (q *quotas) endpoints(a *api.API) []endpoint.Endpoint {
	token := endpoint.Parameter{In: endpoint.Path, Name: "token", About: "The project's token, percent-encoded."}
	one := []endpoint.Parameter{
		token,
		{In: endpoint.Path, Name: "resource", About: "The kind of events.", Values: names(events.Resources())},
		{In: endpoint.Path, Name: "period", About: "The length of the window.", Values: names(events.Periods())},
	}
	change := slices.Concat(one, api.Preconditions())
	limits := func(about string) []endpoint.Answer {
		return []endpoint.Answer{{
			Status: http.StatusOK, About: about, Of: Limits{},
			Headers: map[string]string{"ETag": "The digest of the project's record, for If-Match, if there is one."},
		}}
	}
	quota := []endpoint.Answer{{Status: http.StatusOK, About: "The quota as it is now.", Of: Quota{}}}
	operation := func(pattern, about string, access endpoint.Access, handle func(*api.Call) (*api.Answer, error),
	) api.Operation {
		return api.Operation{Pattern: pattern, About: about, Access: access, Handle: handle, Parameters: one}
	}
	show := operation("GET "+limitsPath, "The limits that hold for a project, and how much of its quotas is used.",
		endpoint.Reader, q.show)
	show.Parameters, show.Answers = []endpoint.Parameter{token}, limits("The limits.")
	show.Problems = []int{http.StatusConflict, http.StatusServiceUnavailable}
	set := operation("PUT "+quotaPath, "Gives a project a quota of its own, or another limit. A project without "+
		"limits of its own first gets those that hold for it.", endpoint.Operator, q.set)
	set.Parameters, set.Body, set.Answers = change, Limit{}, limits("The limits that hold now.")
	remove := operation("DELETE "+quotaPath, "Takes a quota from a project.", endpoint.Operator, q.remove)
	remove.Parameters, remove.Answers = change, limits("The limits that hold now.")
	refund := operation("POST "+quotaPath+"/refund", "Gives back events that were counted in the window of this "+
		"moment.", endpoint.Operator, q.refund)
	refund.Body, refund.Answers = Refund{}, quota
	reset := operation("POST "+quotaPath+"/reset", "Gives back all events that were counted in the window of this "+
		"moment, but for what nodes hold.", endpoint.Operator, q.reset)
	reset.Answers = quota
	for _, op := range []*api.Operation{&set, &remove} {
		op.Problems = []int{
			http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed, http.StatusPreconditionRequired,
			http.StatusUnprocessableEntity,
		}
	}
	for _, op := range []*api.Operation{&refund, &reset} {
		op.Problems = []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}
	}
	return []endpoint.Endpoint{
		a.Endpoint(show), a.Endpoint(set), a.Endpoint(remove), a.Endpoint(refund), a.Endpoint(reset),
	}
}

// names returns the names of all values.
func names[T interface{ String() string }](all []T) (names []string) {
	for _, one := range all {
		names = append(names, one.String())
	}
	return names
}

// subject is a project that a call is about.
type subject struct {
	token  string
	fields store.Fields // nil: the shared store has no record of it
	record project.Record
	limits *events.Limits
}

func (s *subject) tag() string {
	if s.fields == nil {
		return ""
	}
	return api.Tag(s.fields)
}

// find returns the project that the call is about, and the limits that hold for it.
func (q *quotas) find(ctx context.Context, token string) (*subject, error) {
	if err := checkToken(token); err != nil {
		return nil, api.Problemf(http.StatusBadRequest, "%q in the path: %s", token, err)
	}
	s := &subject{token: token}
	if record := q.files.InFile(token); record != nil {
		s.record = *record
		s.limits = q.allowances.LimitsOf(&events.Project{ID: s.record.ID, Limits: s.record.Limits})
		return s, nil
	}
	fields, err := q.records.Get(ctx, project.Kind, token)
	if err != nil {
		return nil, err
	}
	if len(fields) > 0 {
		s.fields = fields
		if s.record, err = project.Parse(fields); err != nil {
			return nil, api.Problemf(http.StatusConflict, "the record of the project has faults, so its limits are "+
				"not known: see /admin/projects%s: %s", api.Path(token), err)
		}
	}
	s.limits = q.allowances.LimitsOf(&events.Project{ID: s.record.ID, Limits: s.record.Limits})
	return s, nil
}

// named returns the quota that the path names.
func named(call *api.Call) (quota events.Quota, err error) {
	if quota.Resource, err = events.ParseResource(call.Path("resource")); err != nil {
		return quota, api.Problemf(http.StatusBadRequest, "the resource in the path %s", err)
	}
	if quota.Period, err = events.ParsePeriod(call.Path("period")); err != nil {
		return quota, api.Problemf(http.StatusBadRequest, "the period in the path %s", err)
	}
	return quota, nil
}

// is reports whether two quotas are about the same, whatever their limits.
func is(a events.Quota) func(events.Quota) bool {
	return func(b events.Quota) bool { return a.Resource == b.Resource && a.Period == b.Period }
}

func (q *quotas) show(call *api.Call) (*api.Answer, error) {
	s, err := q.find(call.Context(), call.Path("token"))
	if err != nil {
		return nil, err
	}
	return q.answer(call.Context(), s)
}

// answer shows the limits of a project.
func (q *quotas) answer(ctx context.Context, s *subject) (*api.Answer, error) {
	limits := Limits{
		Token: s.token, Own: s.record.Limits != nil, Zone: zoneOf(s.limits).String(), Quotas: []Quota{},
		Rates: []string{}, UserRates: []string{}, Over: s.limits.Over.String(), Whole: s.limits.Whole,
	}
	used, err := q.allowances.Usage(ctx, s.token, s.limits)
	if err != nil {
		return nil, err
	}
	for _, one := range used {
		limits.Quotas = append(limits.Quotas, quotaOf(one))
	}
	limits.Rates = append(limits.Rates, names(s.limits.Rates)...)
	limits.UserRates = append(limits.UserRates, names(s.limits.UserRates)...)
	return &api.Answer{Status: http.StatusOK, Body: limits, ETag: s.tag()}, nil
}

func zoneOf(limits *events.Limits) *time.Location {
	if limits.Zone == nil {
		return time.UTC
	}
	return limits.Zone
}

func quotaOf(a events.Allowance) Quota {
	return Quota{
		Resource: a.Quota.Resource.String(), Period: a.Quota.Period.String(), Limit: a.Quota.Limit, Used: a.Used,
		Held: a.Held, Remaining: max(0, a.Quota.Limit-a.Used) + a.Held, Start: a.Start, Reset: a.Reset,
	}
}

func (q *quotas) set(call *api.Call) (*api.Answer, error) {
	var body Limit
	if err := call.Decode(&body); err != nil {
		return nil, err
	}
	quota, err := named(call)
	if err != nil {
		return nil, err
	}
	if body.Limit == nil || *body.Limit < 0 {
		return nil, api.Problemf(http.StatusUnprocessableEntity, "limit must be a whole number that is not negative")
	}
	quota.Limit = *body.Limit
	return q.change(call, func(all []events.Quota) ([]events.Quota, error) {
		if i := slices.IndexFunc(all, is(quota)); i >= 0 {
			all[i] = quota
			return all, nil
		}
		return append(all, quota), nil
	})
}

func (q *quotas) remove(call *api.Call) (*api.Answer, error) {
	quota, err := named(call)
	if err != nil {
		return nil, err
	}
	return q.change(call, func(all []events.Quota) ([]events.Quota, error) {
		if !slices.ContainsFunc(all, is(quota)) {
			return nil, missing(quota, all)
		}
		return slices.DeleteFunc(all, is(quota)), nil
	})
}

// missing returns the problem of a quota that a project does not have.
func missing(quota events.Quota, all []events.Quota) error {
	has := "it has none"
	if len(all) > 0 {
		has = "it has " + strings.Join(names(all), ", ")
	}
	return api.Problemf(http.StatusNotFound, "the project has no quota of %s per %s: %s", quota.Resource, quota.Period,
		has)
}

// change changes the quotas in the record of a project.
func (q *quotas) change(call *api.Call, edit func([]events.Quota) ([]events.Quota, error)) (*api.Answer, error) {
	s, err := q.find(call.Context(), call.Path("token"))
	if err != nil {
		return nil, err
	}
	if err := inFile(q.files, s.token); err != nil {
		return nil, err
	}
	if err := call.Match(s.tag()); err != nil {
		return nil, err
	}
	limits := *s.limits
	if limits.Quotas, err = edit(slices.Clone(limits.Quotas)); err != nil {
		return nil, err
	}
	record := s.record
	record.Limits = &limits
	after, err := checkProject(s.token, fieldsOf(&record))
	if err != nil {
		return nil, api.Invalid(err)
	}
	if err := projects(q.records, q.files).Change(call, s.token, s.fields, after); err != nil {
		return nil, err
	}
	s.fields, s.record, s.limits = after, record, &limits
	return q.answer(call.Context(), s)
}

func (q *quotas) refund(call *api.Call) (*api.Answer, error) {
	var body Refund
	if err := call.Decode(&body); err != nil {
		return nil, err
	}
	if body.Events == nil || *body.Events == 0 {
		return nil, api.Problemf(http.StatusUnprocessableEntity, "events must be a whole number other than 0")
	}
	return q.adjust(call, body, func(ctx context.Context, s *subject, of events.Quota) (events.Allowance, error) {
		return q.allowances.Refund(ctx, s.token, s.limits, of, *body.Events)
	})
}

func (q *quotas) reset(call *api.Call) (*api.Answer, error) {
	return q.adjust(call, nil, func(ctx context.Context, s *subject, of events.Quota) (events.Allowance, error) {
		return q.allowances.Reset(ctx, s.token, s.limits, of)
	})
}

// adjust changes what is used of a quota. asked is the body of the request, for the audit log.
func (q *quotas) adjust(
	call *api.Call, asked any, apply func(context.Context, *subject, events.Quota) (events.Allowance, error),
) (*api.Answer, error) {
	wanted, err := named(call)
	if err != nil {
		return nil, err
	}
	s, err := q.find(call.Context(), call.Path("token"))
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(s.limits.Quotas, is(wanted))
	if i < 0 {
		return nil, missing(wanted, s.limits.Quotas)
	}
	used, err := q.allowances.Usage(call.Context(), s.token, s.limits)
	if err != nil {
		return nil, err
	}
	var now events.Allowance
	of := audit.Subject{
		Kind: "quota", Name: s.token + " " + wanted.Resource.String() + "/" + wanted.Period.String(), Asked: asked,
	}
	if i < len(used) {
		of.Before = quotaOf(used[i])
	}
	err = call.ChangeTo(of, func(ctx context.Context) (after any, err error) {
		now, err = apply(ctx, s, s.limits.Quotas[i])
		if err != nil {
			return nil, err
		}
		return quotaOf(now), nil
	})
	if err != nil {
		return nil, err
	}
	return api.OK(quotaOf(now)), nil
}
