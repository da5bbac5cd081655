package store

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
)

// These functions ask for the store that the graph has: a test may put another one in its place, which then has no
// Status.

// statusOf returns how the store is. A store without a Status is reachable.
func statusOf(s Store) Status {
	if running, ok := s.(Running); ok {
		return running.Status()
	}
	return Status{Reachable: true}
}

func newCheck(s Store) observability.Check {
	return observability.Check{Name: "store", Ready: func(context.Context) error {
		status := statusOf(s)
		if trouble := cmp.Or(status.Trouble(), status.Degraded()); trouble != "" {
			return errors.New(trouble)
		}
		return nil
	}}
}

// newOverride returns why the service is ready without its store, or with a part of it: the store answers all the same,
// or no user of the store fails events.
func newOverride(s Store, users []User) observability.Override {
	return observability.Override{Check: "store", Why: func(context.Context) string {
		if statusOf(s).Degraded() != "" {
			return "the store answers all the same"
		}
		open := make([]string, 0, len(users))
		for _, user := range users {
			if user.Closed() {
				return ""
			}
			open = append(open, user.Name)
		}
		if len(open) == 0 {
			return "no feature uses the store"
		}
		return "events pass without the store (on_store_failure is open: " + strings.Join(open, ", ") + ")"
	}}
}

func newFact(s Store) module.StartFact {
	return module.StartFact{Rank: 40, Name: "state", Text: func() string {
		status := statusOf(s)
		if trouble := cmp.Or(status.Trouble(), status.Degraded()); trouble != "" {
			return status.Where + ": " + trouble
		}
		return status.Where
	}}
}

func newEndpoint(s Store) endpoint.Endpoint {
	return endpoint.Endpoint{
		Pattern: "GET /admin/store",
		About:   "Whether the store of the shared state answers, and since when it does not.",
		Access:  endpoint.Reader,
		Operation: endpoint.Operation{Answers: []endpoint.Answer{
			{Status: http.StatusOK, About: "How the store is.", Of: Status{}},
		}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			endpoint.Show(w, statusOf(s))
		}),
	}
}

// rules returns a rule that refuses a configuration whose backend the build lacks, and the probe of the backend in use.
func rules(backends []Backend) (rule, probe configs.Rule) {
	rule = func(set *configs.Set) error {
		c, err := configs.SectionOf[Config](set)
		if err == nil {
			_, _, err = choose(c, backends)
		}
		return err
	}
	probe = func(set *configs.Set) error {
		c, err := configs.SectionOf[Config](set)
		if err != nil {
			return err
		}
		backend, _, err := choose(c, backends)
		if err != nil {
			return nil //nolint:nilerr // the rule reports it
		}
		var faults configs.Faults
		for _, probe := range backend.Probes {
			faults.Nest("", probe(set))
		}
		return faults.Err()
	}
	return rule, probe
}
