package admin

import (
	"net/http"
	"net/http/pprof"
	"regexp"
	"strconv"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/endpoint"
)

// maxProfileSeconds is the longest time that a profile may run, in seconds.
const maxProfileSeconds = 60

// newProfiles returns the endpoints of net/http/pprof. Those that take a profile are for operators, since a profile
// costs something: a CPU profile and a trace slow the service down, a heap profile may run the garbage collector, and a
// goroutine profile stops all goroutines.
func newProfiles() []endpoint.Endpoint {
	running := make(chan struct{}, 1)
	reader := func(pattern, about, answer string, handler http.HandlerFunc) endpoint.Endpoint {
		return endpoint.Endpoint{
			Pattern: pattern, About: about, Access: endpoint.Reader, Handler: handler,
			Operation: endpoint.Operation{Answers: []endpoint.Answer{
				{Status: http.StatusOK, About: "What net/http/pprof says.", Type: answer},
			}},
		}
	}
	operator := func(pattern, about string, handler http.Handler) endpoint.Endpoint {
		return endpoint.Endpoint{
			Pattern: pattern, About: about, Access: endpoint.Operator, Handler: handler, Operation: profiling(),
		}
	}
	named := http.HandlerFunc(pprof.Index)
	timed := oneAtATime(running, named, isWhole)
	return []endpoint.Endpoint{
		reader("GET /debug/pprof/{$}", "The profiles of net/http/pprof.", "text/html", pprof.Index),
		reader("GET /debug/pprof/cmdline", "The command line of the process.", "text/plain", pprof.Cmdline),
		reader("GET /debug/pprof/symbol", "The functions at the given program counters.", "text/plain", pprof.Symbol),
		reader("POST /debug/pprof/symbol", "The same for the program counters in the body.", "text/plain",
			pprof.Symbol),
		operator("GET /debug/pprof/profile", "A CPU profile of ?seconds=30, for go tool pprof.",
			oneAtATime(running, http.HandlerFunc(pprof.Profile), isWhole)),
		operator("GET /debug/pprof/trace", "An execution trace of ?seconds=1, for go tool trace.",
			oneAtATime(running, http.HandlerFunc(pprof.Trace), isFraction)),
		operator("GET /debug/pprof/{profile...}",
			"A profile by its name, such as heap or goroutine; with ?seconds, of that time.",
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.FormValue("seconds") != "" {
					timed.ServeHTTP(w, r)
					return
				}
				named.ServeHTTP(w, r)
			})),
	}
}

// profiling describes an endpoint that takes a profile.
func profiling() endpoint.Operation {
	problem := func(status int, about string) endpoint.Answer {
		return endpoint.Answer{Status: status, About: about, Of: api.Problem{}, Type: api.TypeProblem}
	}
	return endpoint.Operation{
		Parameters: []endpoint.Parameter{
			{In: endpoint.Query, Name: "seconds", Of: 0.0, About: "How long the profile runs: at most 60."},
			{In: endpoint.Query, Name: "debug", Of: 0, About: "1 and 2 write a named profile as text."},
		},
		Answers: []endpoint.Answer{
			{Status: http.StatusOK, About: "The profile. With debug, text.", Type: "application/octet-stream"},
			problem(http.StatusBadRequest, "The number of seconds is none, or more than 60."),
			problem(http.StatusConflict, "Another profile is running."),
		},
	}
}

// The numbers of seconds that net/http/pprof reads. It takes its default for any other text.
var (
	isWhole    = regexp.MustCompile(`^[0-9]+$`)
	isFraction = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
)

// oneAtATime limits a profile that runs for a while: to maxProfileSeconds, and to one at a time. The profile ends when
// its client leaves.
func oneAtATime(running chan struct{}, profile http.Handler, number *regexp.Regexp) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := r.FormValue("seconds"); text != "" {
			seconds, err := strconv.ParseFloat(text, 64)
			if err != nil || !number.MatchString(text) || seconds <= 0 || seconds > maxProfileSeconds {
				api.Problemf(http.StatusBadRequest, "seconds must be a number of more than 0 and at most %d, whole "+
					"but for a trace, got %q", maxProfileSeconds, text).Write(w)
				return
			}
		}
		select {
		case running <- struct{}{}:
		default:
			api.Problemf(http.StatusConflict, "another profile is running: ask again when it has ended").Write(w)
			return
		}
		defer func() { <-running }()
		profile.ServeHTTP(w, r)
	})
}
