package usage

import (
	"net/http"
	"time"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/events"
)

// Endpoints returns the endpoints that show the rows, and what the words in the rows mean.
func (m *Meter) Endpoints() []endpoint.Endpoint {
	return []endpoint.Endpoint{m.rowsEndpoint(), m.reasonsEndpoint()}
}

// Reason is a word that says why events ended as they did.
type Reason struct {
	Reason string `json:"reason" doc:"The word, as in the rows, in metrics and in the log."`
	State  string `json:"state" doc:"How such events end, as a rule." enum:"accepted,dropped,rejected,failed"`
	Text   string `json:"text" doc:"What the word means."`
}

func (m *Meter) reasonsEndpoint() endpoint.Endpoint {
	list := api.Page[Reason]{}
	for _, e := range events.Explanations() {
		list.Items = append(list.Items, Reason{string(e.Reason), e.State.String(), e.Text})
	}
	return api.New(nil, m.log).Endpoint(api.Operation{
		Pattern: "GET /admin/usage/reasons", Access: endpoint.Reader,
		About:   "What the reasons mean for which events were not kept. A module may have reasons of its own.",
		Answers: []endpoint.Answer{{Status: http.StatusOK, About: "All reasons, on one page.", Of: list}},
		Handle:  func(*api.Call) (*api.Answer, error) { return api.OK(list), nil },
	})
}

func (m *Meter) rowsEndpoint() endpoint.Endpoint {
	var resources []string
	for _, resource := range events.Resources() {
		resources = append(resources, resource.String())
	}
	return api.New(nil, m.log).Endpoint(api.Operation{
		Pattern: "GET /admin/usage",
		About:   "What each token has sent to this node, by day and resource, and how it ended.",
		Access:  endpoint.Reader,
		Parameters: append([]endpoint.Parameter{
			{In: endpoint.Query, Name: "from", About: "The first day of UTC, such as 2026-11-30. Default: today."},
			{In: endpoint.Query, Name: "to", About: "The last day. Default: today, or from if that is later."},
			{In: endpoint.Query, Name: "token", About: "Only the rows of this token."},
			{In: endpoint.Query, Name: "group", About: "Only the rows of this group.",
				Values: []string{GroupOthers, GroupNoToken}},
			{In: endpoint.Query, Name: "resource", About: "Only the rows of this resource.", Values: resources},
		}, api.Paging()...),
		Answers: []endpoint.Answer{{
			Status: http.StatusOK, About: "A page of rows, in the order of their days, tokens and resources.",
			Of: api.Page[Row]{},
		}},
		Handle: m.show,
	})
}

// position is where a row stands in the order of all rows.
type position struct {
	Day, Token, Group, Resource string
}

func (m *Meter) show(call *api.Call) (*api.Answer, error) {
	limit, err := call.Limit()
	if err != nil {
		return nil, err
	}
	from, to, err := period(call)
	if err != nil {
		return nil, err
	}
	var last position
	continued, err := call.After(&last)
	if err != nil {
		return nil, err
	}
	before := Row{Day: last.Day, Token: last.Token, Group: last.Group, Resource: last.Resource}
	page := api.Page[Row]{Items: []Row{}}
	days, err := m.days()
	if err != nil {
		return nil, err
	}
	for _, d := range days {
		if d < from || d > to || d.String() < before.Day {
			continue
		}
		rows, err := m.rows(d)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			row := &rows[i]
			if continued && compareRows(row, &before) <= 0 || !wanted(call, row) {
				continue
			}
			if len(page.Items) == limit {
				end := &page.Items[limit-1]
				page.Next = api.Next(position{end.Day, end.Token, end.Group, end.Resource})
				return api.OK(page), nil
			}
			page.Items = append(page.Items, *row)
		}
	}
	return api.OK(page), nil
}

func wanted(call *api.Call, row *Row) bool {
	is := func(name, value string) bool { return call.Query(name) == "" || call.Query(name) == value }
	return is("token", row.Token) && is("group", row.Group) && is("resource", row.Resource)
}

// period returns the first and the last day that the call asks for.
func period(call *api.Call) (from, to day, err error) {
	today := dayOf(time.Now())
	read := func(name string, without day) (day, error) {
		text := call.Query(name)
		if text == "" {
			return without, nil
		}
		d, err := parseDay(text)
		if err != nil {
			return 0, api.Problemf(http.StatusBadRequest, "%s must be a day such as %s, got %q", name, today, text)
		}
		return d, nil
	}
	if from, err = read("from", today); err != nil {
		return 0, 0, err
	}
	if to, err = read("to", max(from, today)); err != nil {
		return 0, 0, err
	}
	if call.Query("from") == "" && to < from {
		from = to
	}
	if to < from {
		return 0, 0, api.Problemf(http.StatusBadRequest, "to must not be before from, got %s and %s", from, to)
	}
	return from, to, nil
}
