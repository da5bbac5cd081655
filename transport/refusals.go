package transport

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// refusalsEvery is how often a line tells of refused requests of one route with one status.
	refusalsEvery = 10 * time.Second
	// maxLogged is how many bytes of a path or an answer a line shows.
	maxLogged = 200
)

// refusals logs the requests that were refused: at level info one in every ten seconds for each route and status, with
// the number of those in between, and at level debug each of them. A line says why a request was refused. It has
// nothing of the request's body or headers. refusals is safe for concurrent use.
type refusals struct {
	log *zap.Logger
	now func() time.Time

	mu   sync.Mutex
	seen map[refused]*refusalCount
}

// refused is a kind of refusal: the path of the route, or "" for requests without a route, and the status.
type refused struct {
	route  string
	status int
}

// refusalCount counts the refusals of one kind that no line has told of.
type refusalCount struct {
	told  time.Time
	since int
}

func newRefusals(log *zap.Logger) *refusals {
	return &refusals{log: log, now: time.Now, seen: map[refused]*refusalCount{}}
}

// add logs a refused request, or counts it. The strings may alias the server's buffers.
func (r *refusals) add(kind refused, path, answer, requestID string, client netip.Addr) {
	before, due := r.due(kind)
	level := zapcore.InfoLevel
	if !due {
		level = zapcore.DebugLevel
	}
	entry := r.log.Check(level, "request refused")
	if entry == nil {
		return
	}
	entry.Write(zap.Int("status", kind.status),
		zap.String("path", shortened(path)), zap.String("answer", shortened(answer)),
		zap.Stringer("client_ip", client), zap.String("request_id", strings.Clone(requestID)),
		zap.Int("more_like_this_before", before))
}

// due reports whether it is time for a line, and returns how many refusals of the kind came since the last one.
func (r *refusals) due(kind refused) (before int, due bool) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	count := r.seen[kind]
	if count == nil {
		count = &refusalCount{}
		r.seen[kind] = count
	} else if now.Sub(count.told) < refusalsEvery {
		count.since++
		return 0, false
	}
	before = count.since
	count.told, count.since = now, 0
	return before, true
}

// shortened returns a copy of the text's first bytes.
func shortened(text string) string {
	if len(text) <= maxLogged {
		return strings.Clone(text)
	}
	return strings.ToValidUTF8(text[:maxLogged], "") + "..."
}
