package admin

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"regexp"
	"strconv"

	"github.com/opencapture/capture/modules/admin/endpoint"
)

// maxProfileSeconds is the longest time that a profile may run, in seconds.
const maxProfileSeconds = 60

// newProfiles returns the endpoints of net/http/pprof. Those that take a profile are for operators, since a profile
// costs something: a CPU profile and a trace slow the service down, a heap profile may run the garbage collector, and a
// goroutine profile stops all goroutines.
func newProfiles() []endpoint.Endpoint {
	running := make(chan struct{}, 1)
	reader := func(pattern, about string, handler http.HandlerFunc) endpoint.Endpoint {
		return endpoint.Endpoint{Pattern: pattern, About: about, Access: endpoint.Reader, Handler: handler}
	}
	operator := func(pattern, about string, handler http.Handler) endpoint.Endpoint {
		return endpoint.Endpoint{Pattern: pattern, About: about, Access: endpoint.Operator, Handler: handler}
	}
	named := http.HandlerFunc(pprof.Index)
	timed := oneAtATime(running, named, isWhole)
	return []endpoint.Endpoint{
		reader("GET /debug/pprof/{$}", "The profiles of net/http/pprof.", pprof.Index),
		reader("GET /debug/pprof/cmdline", "The command line of the process.", pprof.Cmdline),
		reader("GET /debug/pprof/symbol", "The functions at the given program counters.", pprof.Symbol),
		reader("POST /debug/pprof/symbol", "The same for the program counters in the body.", pprof.Symbol),
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
				reason := fmt.Sprintf("seconds must be a number of more than 0 and at most %d, whole but for a trace, "+
					"got %q", maxProfileSeconds, text)
				http.Error(w, reason, http.StatusBadRequest)
				return
			}
		}
		select {
		case running <- struct{}{}:
		default:
			http.Error(w, "another profile is running: ask again when it has ended", http.StatusConflict)
			return
		}
		defer func() { <-running }()
		profile.ServeHTTP(w, r)
	})
}
