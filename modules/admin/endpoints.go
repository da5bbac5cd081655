package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/observability"
)

// Endpoints returns the listener's own endpoints, without the index.
func Endpoints(
	gatherer prometheus.Gatherer, health *observability.Health, live *configs.Live, auditLog *audit.Log,
	log *zap.Logger,
) []endpoint.Endpoint {
	return slices.Concat(
		[]endpoint.Endpoint{newMetrics(gatherer, log), newHealthz(), newReadyz(health)},
		newReload(live, auditLog),
		newProfiles(),
	)
}

// newMux returns a handler that serves the guarded endpoints. Its error names every endpoint that cannot be served.
func newMux(endpoints []endpoint.Endpoint) (*http.ServeMux, error) {
	mux := http.NewServeMux()
	seen := map[string]bool{}
	var faults []error
	for _, e := range endpoints {
		err := check(e)
		switch {
		case err != nil:
		case seen[e.Pattern]:
			err = errors.New("two endpoints have this pattern: change one, or leave out a module")
		default:
			seen[e.Pattern] = true
			err = handle(mux, e)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("the operators' endpoint %q: %w", e.Pattern, err))
		}
	}
	return mux, errors.Join(faults...)
}

// check returns an error that says what the endpoint lacks.
func check(e endpoint.Endpoint) error {
	method, path, _ := strings.Cut(e.Pattern, " ")
	switch {
	case method == "" || !strings.HasPrefix(path, "/"):
		return errors.New("its Pattern must be a method and a path, such as \"GET /admin/keys\"")
	case e.About == "":
		return errors.New("its About must say what the endpoint does")
	case !e.Access.Valid():
		return errors.New("its Access must be Operator, Reader or Anyone")
	case e.Handler == nil:
		return errors.New("its Handler is missing")
	}
	return nil
}

// handle registers the endpoint. It returns a panic of the ServeMux as an error: the pattern is invalid, or overlaps
// with another one.
func handle(mux *http.ServeMux, e endpoint.Endpoint) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%v", cause)
		}
	}()
	mux.Handle(e.Pattern, guardAccess(e))
	return nil
}

// newMetrics returns an endpoint that shows all metrics that could be gathered, even if some could not: when something
// is broken, an operator needs the others most.
func newMetrics(gatherer prometheus.Gatherer, log *zap.Logger) endpoint.Endpoint {
	return endpoint.Endpoint{
		Pattern: "GET /metrics",
		About:   "What Prometheus scrapes.",
		Access:  endpoint.Anyone,
		Operation: endpoint.Operation{Answers: []endpoint.Answer{
			{Status: http.StatusOK, About: "The metrics in a format of Prometheus.", Type: "text/plain"},
		}},
		Handler: promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
			ErrorLog:      scrapeLog{log},
			ErrorHandling: promhttp.ContinueOnError,
		}),
	}
}

// scrapeLog is promhttp's logger.
type scrapeLog struct{ log *zap.Logger }

func (l scrapeLog) Println(args ...any) {
	l.log.Sugar().Errorln(args...)
}

func newHealthz() endpoint.Endpoint {
	return endpoint.Endpoint{
		Pattern: "GET /healthz",
		About:   "200 as long as the process serves.",
		Access:  endpoint.Anyone,
		Operation: endpoint.Operation{Answers: []endpoint.Answer{
			{Status: http.StatusOK, About: "The process serves.", Type: "text/plain"},
		}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }),
	}
}

func newReadyz(health *observability.Health) endpoint.Endpoint {
	return endpoint.Endpoint{
		Pattern: "GET /readyz",
		About:   "200 if the service is ready for traffic, else 503 with what is missing.",
		Access:  endpoint.Anyone,
		Operation: endpoint.Operation{Answers: []endpoint.Answer{
			{Status: http.StatusOK, About: "The service is ready for traffic.", Of: observability.Report{}},
			{Status: http.StatusServiceUnavailable, About: "The service is not ready.", Of: observability.Report{}},
		}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			report := health.Report(r.Context())
			status := http.StatusOK
			if !report.Ready {
				status = http.StatusServiceUnavailable
			}
			writeJSON(w, status, report)
		}),
	}
}

// newReload returns the endpoints that exchange the configuration and show the outcome.
func newReload(live *configs.Live, auditLog *audit.Log) []endpoint.Endpoint {
	status := endpoint.Answer{Status: http.StatusOK, About: "How the exchange ended.", Of: configs.Status{}}
	return []endpoint.Endpoint{{
		Pattern:   "GET /admin/reload",
		About:     "How the last exchange of the configuration ended.",
		Access:    endpoint.Reader,
		Operation: endpoint.Operation{Answers: []endpoint.Answer{status}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, live.Status())
		}),
	}, {
		Pattern: "POST /admin/reload",
		About:   "Loads the configuration and puts it in force: 200, or 409 with the reason why the old one stays.",
		Access:  endpoint.Operator,
		Operation: endpoint.Operation{Answers: []endpoint.Answer{
			status,
			{Status: http.StatusConflict, About: "The old configuration stays, or a module panicked; error says why.",
				Of: configs.Status{}},
			{Status: http.StatusServiceUnavailable, About: "The audit log cannot be written. Nothing was changed.",
				Of: api.Problem{}, Type: api.TypeProblem,
				Headers: map[string]string{"Retry-After": "Seconds after which to ask again."}},
		}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			change, err := auditLog.Begin(r, audit.Subject{Kind: "configuration", Before: numberOf(live.Status())})
			if err != nil {
				api.ProblemOf(err).Write(w)
				return
			}
			status, err := live.Reload()
			change.EndWith(r.Context(), numberOf(status), err)
			if err != nil {
				writeJSON(w, http.StatusConflict, status)
				return
			}
			writeJSON(w, http.StatusOK, status)
		}),
	}}
}

// number is what the audit log says of a configuration. Its content is in files that have a history of their own, and
// may hold secrets.
type number struct {
	Number  int      `json:"number"`
	Changed []string `json:"changed,omitempty"`
}

func numberOf(status configs.Status) number { return number{status.Number, status.Changed} }

// writeJSON answers with the value, which must have a form in JSON.
func writeJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has left gets nothing
}
