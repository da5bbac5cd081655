package admin

import (
	"context"
	"fmt"
	"net/http"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

// maxBodyBytes is the largest body that a request may have.
const maxBodyBytes = 1 << 20

// front is the first handler of every request. It chooses the configuration that the request is judged by, refuses a
// Host that the listener does not answer to, limits the body, and answers when a handler panics.
type front struct {
	now func() Config
	mux http.Handler
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
		http.Error(w, "this failed: the log says why", http.StatusInternalServerError)
	}()
	// Without a Host comes an old probe, and never a browser, which is what the rule is against.
	isOld := r.Host == "" && !r.ProtoAtLeast(1, 1)
	if !isOld && !cfg.answersTo(r.Host) {
		refused := fmt.Sprintf("this listener answers to addresses, to localhost and to the names in admin.hosts: "+
			"%q is none of them", r.Host)
		http.Error(answer, refused, http.StatusMisdirectedRequest)
		return
	}
	f.mux.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), judgedBy{}, cfg)))
}

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
