package control

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/client"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
)

func quotaCommand() module.Command {
	return module.Command{
		Use: "quota", Short: "Look at what projects have used of their quotas, and change it",
		Long: `A quota is how many events of a kind a project may send in a window of the calendar, such as
events=1000000/month. These commands show what is used of the quotas in the windows of this moment, over all nodes, set
quotas in the record of a project, and give back events that were counted.

The commands ask a running service, at admin.listen of the configuration or at --server, with admin.token of the
configuration. Every change is in the service's audit log.`,
		Example:  "  capture quota show phc_mine",
		Commands: []module.Command{quotaList(), quotaShow(), quotaSet(), quotaDelete(), quotaRefund(), quotaReset()},
	}
}

// quotaRow is a row of the lists of quotas.
type quotaRow struct {
	Token string `json:"token"`
	Quota
}

// listQuotas begins a list of quotas.
func listQuotas(use module.Invocation) *module.List {
	return use.List("token", "quota", "used", "held", "remaining", "resets")
}

func addQuotas(list *module.List, limits *Limits) error {
	for _, q := range limits.Quotas {
		quota := fmt.Sprintf("%s=%d/%s", q.Resource, q.Limit, q.Period)
		row := quotaRow{Token: limits.Token, Quota: q}
		err := list.Add(row, limits.Token, quota, q.Used, q.Held, q.Remaining, q.Reset.Format(time.RFC3339))
		if err != nil {
			return err
		}
	}
	return nil
}

func quotaList() module.Command {
	var ask client.Flags
	return module.Command{
		Use: "list", Short: "List the quotas of all projects in the shared store", Output: module.Table, Flags: ask.Add,
		Example: "  capture quota list",
		Run: func(use module.Invocation, own client.Own) error {
			service, err := ask.Client(own)
			if err != nil {
				return err
			}
			list := listQuotas(use)
			err = projectCommands().each(use.Context, service, func(r *api.Record) error {
				if len(r.Faults) > 0 {
					use.Hint("the limits of %s are not known, since its record has faults: %s", r.Name,
						faultsOf(r.Faults))
					return nil
				}
				var limits Limits
				if _, err := service.Get(use.Context, limitsOf(r.Name), &limits); err != nil {
					return err
				}
				return addQuotas(list, &limits)
			})
			if err != nil {
				return err
			}
			return list.Flush()
		},
	}
}

// limitsOf returns the path of a project's limits.
func limitsOf(token string) string { return "/admin/projects" + api.Path(token) + "/quotas" }

// asked returns the path of the limits of the project that the command line names.
func asked(use module.Invocation) (path string, err error) {
	if err := checkToken(use.Args[0]); err != nil {
		return "", module.Misusef("TOKEN %q: %s", use.Args[0], err)
	}
	return limitsOf(use.Args[0]), nil
}

func quotaShow() module.Command {
	var ask client.Flags
	return module.Command{
		Use: "show TOKEN", Short: "Show the quotas of a project and what is used of them", Output: module.Table,
		Flags:   ask.Add,
		Example: "  capture quota show phc_mine --output json",
		Run: func(use module.Invocation, own client.Own) error {
			path, err := asked(use)
			if err != nil {
				return err
			}
			service, err := ask.Client(own)
			if err != nil {
				return err
			}
			var limits Limits
			if _, err := service.Get(use.Context, path, &limits); err != nil {
				return err
			}
			return showLimits(use, &limits)
		},
	}
}

// showLimits prints the limits of a project.
func showLimits(use module.Invocation, limits *Limits) error {
	list := listQuotas(use)
	if err := addQuotas(list, limits); err != nil {
		return err
	}
	if err := list.Flush(); err != nil {
		return err
	}
	if !limits.Own {
		use.Hint("the project has no limits of its own: those of the section quota hold for it")
	}
	if len(limits.Rates) > 0 {
		use.Hint("rates: %s; over a rate: %s", strings.Join(limits.Rates, ", "), limits.Over)
	}
	if len(limits.UserRates) > 0 {
		use.Hint("rates of each user: %s", strings.Join(limits.UserRates, ", "))
	}
	return nil
}

// preconditions returns the headers for a change of a project whose limits had the tag.
func preconditions(tag string) []string {
	if tag == "" {
		return []string{"If-None-Match", "*"}
	}
	return []string{"If-Match", tag}
}

func quotaSet() module.Command {
	var ask client.Flags
	return module.Command{
		Use: "set TOKEN RESOURCE=LIMIT/PERIOD...", Short: "Set quotas of a project", Output: module.Table,
		Long: `Sets quotas in the record of a project, and leaves its others as they are. A project without limits of
its own first gets those that hold for it, so that nothing else changes.`,
		Example: "  capture quota set phc_mine events=1000000/month recordings=5000/day",
		Flags:   ask.Add,
		Run: func(use module.Invocation, own client.Own) error {
			var quotas []events.Quota
			for _, text := range use.Args[1:] {
				quota, err := events.ParseQuota(text)
				if err != nil {
					return module.Misusef("%s", err)
				}
				if slices.ContainsFunc(quotas, is(quota)) {
					return module.Misusef("%s/%s is given twice", quota.Resource, quota.Period)
				}
				quotas = append(quotas, quota)
			}
			path, err := asked(use)
			if err != nil {
				return err
			}
			service, err := ask.Client(own)
			if err != nil {
				return err
			}
			var limits Limits
			tag, err := service.Get(use.Context, path, &limits)
			if err != nil {
				return err
			}
			for i, quota := range quotas {
				answer, err := service.Do(use.Context, client.Request{
					Method: http.MethodPut, Path: path + quotaPathOf(quota),
					Body: Limit{Limit: &quota.Limit}, Header: preconditions(tag),
				})
				if err != nil && i > 0 {
					done := strings.Join(names(quotas[:i]), ", ")
					return fmt.Errorf("%s was set, and %s was not: %w", done, quota, err)
				}
				if err != nil {
					return explained(err)
				}
				tag, limits = answer.Header.Get("ETag"), Limits{}
				if err := answer.Decode(&limits); err != nil {
					return err
				}
			}
			return showLimits(use, &limits)
		},
	}
}

// quotaPathOf returns the end of the path of a quota.
func quotaPathOf(quota events.Quota) string {
	return api.Path(quota.Resource.String(), quota.Period.String())
}

// parseQuotaName reads RESOURCE/PERIOD.
func parseQuotaName(text string) (quota events.Quota, err error) {
	resource, period, found := strings.Cut(text, "/")
	if !found {
		return quota, module.Misusef("a quota is named as RESOURCE/PERIOD, such as events/month, got %q", text)
	}
	if quota.Resource, err = events.ParseResource(resource); err != nil {
		return quota, module.Misusef("the resource %s", err)
	}
	if quota.Period, err = events.ParsePeriod(period); err != nil {
		return quota, module.Misusef("the period %s", err)
	}
	return quota, nil
}

// quotaNames are the names of all quotas that there can be.
func quotaNames(module.Invocation) (all []string, err error) {
	for _, resource := range events.Resources() {
		for _, period := range events.Periods() {
			all = append(all, resource.String()+"/"+period.String())
		}
	}
	return all, nil
}

func quotaDelete() module.Command {
	var ask client.Flags
	return module.Command{
		Use: "delete TOKEN RESOURCE/PERIOD", Short: "Take a quota from a project", Output: module.Table, Flags: ask.Add,
		Long: `Takes a quota from the record of a project. If no limit of its own is left, the project may send without
limit; "capture project set TOKEN quotas= rates= user_rates=" gives it the limits of the section quota again.`,
		Example: "  capture quota delete phc_mine events/month",
		Values:  map[string]any{"RESOURCE/PERIOD": quotaNames},
		Run: func(use module.Invocation, own client.Own) error {
			quota, err := parseQuotaName(use.Args[1])
			if err != nil {
				return err
			}
			path, err := asked(use)
			if err != nil {
				return err
			}
			service, err := ask.Client(own)
			if err != nil {
				return err
			}
			var limits Limits
			tag, err := service.Get(use.Context, path, &limits)
			if err != nil {
				return err
			}
			answer, err := service.Do(use.Context, client.Request{
				Method: http.MethodDelete, Path: path + quotaPathOf(quota),
				Header: preconditions(tag),
			})
			if err != nil {
				return explained(err)
			}
			limits = Limits{}
			if err := answer.Decode(&limits); err != nil {
				return err
			}
			return showLimits(use, &limits)
		},
	}
}

func quotaRefund() module.Command {
	var ask client.Flags
	var number int64
	return module.Command{
		Use: "refund TOKEN RESOURCE/PERIOD", Short: "Give back events that were counted against a quota",
		Long: `Gives back events that were counted in the window of this moment, so that the project may send as many
more. What is used never falls below what nodes hold at present. A negative number takes events away.`,
		Example: "  capture quota refund phc_mine events/month --events 5000",
		Output:  module.Table, Values: map[string]any{"RESOURCE/PERIOD": quotaNames},
		Flags: func(flags *module.Flags) {
			ask.Add(flags)
			flags.Int64Var(&number, "events", 0, "how many events are given back, a `NUMBER`")
		},
		Run: func(use module.Invocation, own client.Own) error {
			if number == 0 {
				return module.Misusef("--events is missing: how many events are to be given back?")
			}
			return adjust(use, own, &ask, "refund", Refund{Events: &number})
		},
	}
}

func quotaReset() module.Command {
	var ask client.Flags
	return module.Command{
		Use: "reset TOKEN RESOURCE/PERIOD", Short: "Give back all events that were counted against a quota",
		Long: `Gives back all events that were counted in the window of this moment, but for what nodes hold at present
and have not spent.`,
		Example: "  capture quota reset phc_mine events/day", Output: module.Table, Flags: ask.Add,
		Values: map[string]any{"RESOURCE/PERIOD": quotaNames},
		Run: func(use module.Invocation, own client.Own) error {
			return adjust(use, own, &ask, "reset", nil)
		},
	}
}

// adjust changes what is used of a quota, and prints what is used then.
func adjust(use module.Invocation, own client.Own, ask *client.Flags, what string, body any) error {
	quota, err := parseQuotaName(use.Args[1])
	if err != nil {
		return err
	}
	path, err := asked(use)
	if err != nil {
		return err
	}
	service, err := ask.Client(own)
	if err != nil {
		return err
	}
	answer, err := service.Do(use.Context, client.Request{
		Method: http.MethodPost, Path: path + quotaPathOf(quota) + "/" + what, Body: body,
	})
	if err != nil {
		return explained(err)
	}
	limits := Limits{Token: use.Args[0], Quotas: make([]Quota, 1)}
	if err := answer.Decode(&limits.Quotas[0]); err != nil {
		return err
	}
	list := listQuotas(use)
	if err := addQuotas(list, &limits); err != nil {
		return err
	}
	return list.Flush()
}
