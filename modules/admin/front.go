package admin

import (
	"context"
	"net/http"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/panics"
)

// maxBodyBytes is the largest body that a request may have.
const maxBodyBytes = 1 << 20

// front is the first handler of every request. It chooses the configuration that the request is judged by, refuses a
// Host that the listener does not answer to, limits the body, and answers when a handler panics.
type front struct {
	now func() Config
	mux *http.ServeMux
	log *zap.Logger
}

// judgedBy is the key in a request's context for the Config that the request is judged by.
type judgedBy struct{}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	cfg := f.now()
	r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	answer := &answer{ResponseWriter: w}
	defer func() {
		cause := recover()
		if cause == http.ErrAbortHandler { //nolint:errorlint // net/http compares so, too
			panic(cause) // net/http's way to abort an answer
		}
		caught := panics.Caught(cause)
		if caught == nil {
			return
		}
		panics.Log(f.log, "a handler", caught, zap.String("path", r.URL.Path))
		if answer.begun {
			panic(http.ErrAbortHandler) // so that the client sees that the answer is incomplete
		}
		api.Problemf(http.StatusInternalServerError, "this failed: the log says why").Write(w)
	}()
	// Without a Host comes an old probe, and never a browser, which is what the rule is against.
	isOld := r.Host == "" && !r.ProtoAtLeast(1, 1)
	if !isOld && !cfg.answersTo(r.Host) {
		api.Problemf(http.StatusMisdirectedRequest, "this listener answers to addresses, to localhost and to the "+
			"names in admin.hosts: %q is none of them", r.Host).Write(answer)
		return
	}
	if _, pattern := f.mux.Handler(r); pattern == "" {
		f.refuse(answer, r)
		return
	}
	f.mux.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), judgedBy{}, cfg)))
}

// refuse answers a request for which there is no endpoint.
func (f *front) refuse(w http.ResponseWriter, r *http.Request) {
	unserved := &unserved{header: w.Header()}
	f.mux.ServeHTTP(unserved, r) // it knows which methods the path has
	if unserved.status != http.StatusMethodNotAllowed {
		api.Problemf(http.StatusNotFound, "there is nothing at %q: see / for what there is", r.URL.Path).Write(w)
		return
	}
	api.Problemf(http.StatusMethodNotAllowed, "%q has the methods %s, and not %s", r.URL.Path,
		w.Header().Get("Allow"), r.Method).Write(w)
}

// unserved is a ResponseWriter that keeps the status and the headers, and nothing of the body.
type unserved struct {
	header http.Header
	status int
}

// Header implements http.ResponseWriter.
func (u *unserved) Header() http.Header { return u.header }

// Write implements http.ResponseWriter.
func (u *unserved) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter.
func (u *unserved) WriteHeader(status int) { u.status = status }

// answer is a ResponseWriter that notes whether the answer has begun.
type answer struct {
	http.ResponseWriter

	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

// Unwrap gives http.ResponseController the writer below.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
