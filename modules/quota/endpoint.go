package quota

import (
	"net/http"
	"time"

	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/store"
)

// newUser tells the store what the module does without it.
func newUser(q *Quota) store.User {
	return store.User{Name: "quota", Closed: func() bool { return !q.settings.Now().open }}
}

// state is what operators see of the node.
type state struct {
	// Node is the name under which the store knows the node, followed by a number for each account.
	Node string `json:"node"`
	// Journal is the file that holds the accounts, and JournalFault why there is none.
	Journal      string `json:"journal"`
	JournalFault string `json:"journal_fault,omitempty"`
	// Accounts is how many accounts there are, Room how many more there may be. Tokens is how many tokens have some.
	Accounts int   `json:"accounts"`
	Room     int   `json:"room"`
	Tokens   int64 `json:"tokens"`
	// LastFailure is when the store last did not answer, and why.
	LastFailure   *time.Time `json:"last_failure,omitempty"`
	LastFailureOf string     `json:"last_failure_error,omitempty"`
	// Billing is PostHog's own limits, if they are read.
	Billing *billingReport `json:"billing,omitempty"`
}

type billingReport struct {
	Tokens map[string]int `json:"tokens"`
	ReadAt *time.Time     `json:"read_at,omitempty"`
	Error  string         `json:"error,omitempty"`
}

func (q *Quota) state() state {
	used, free := q.journal.accounts()
	s := state{
		Node: q.journal.node, Journal: q.journal.path, Accounts: used, Room: free, Tokens: q.table.count.Load(),
	}
	if q.journal.fault != nil {
		s.JournalFault = q.journal.fault.Error()
	}
	if last := q.failing.Load(); last != nil {
		s.LastFailure, s.LastFailureOf = &last.at, last.err.Error()
	}
	if q.billing.has() {
		s.Billing = q.billing.report()
	}
	return s
}

func (b *billing) report() *billingReport {
	r := &billingReport{Tokens: map[string]int{}}
	sets := b.sets.Load()
	for resource := range billingNames {
		n := 0
		if sets != nil {
			n = len(sets[resource])
		}
		r.Tokens[resource.String()] = n
	}
	if last := b.last.Load(); last != nil {
		if !last.at.IsZero() {
			r.ReadAt = &last.at
		}
		if last.err != nil {
			r.Error = last.err.Error()
		}
	}
	return r
}

func newEndpoint(q *Quota) endpoint.Endpoint {
	return endpoint.Endpoint{
		Pattern: "GET /admin/quota",
		About:   "What this node holds of the projects' limits, and whether the store of the counters answers.",
		Access:  endpoint.Reader,
		Operation: endpoint.Operation{Answers: []endpoint.Answer{
			{Status: http.StatusOK, About: "What this node holds.", Of: state{}},
			{Status: http.StatusServiceUnavailable, About: "The service is starting.", Type: "text/plain"},
		}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if !q.started.Load() {
				http.Error(w, "the service is starting", http.StatusServiceUnavailable)
				return
			}
			endpoint.Show(w, q.state())
		}),
	}
}
