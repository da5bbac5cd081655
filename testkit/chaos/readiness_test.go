//go:build chaos && linux

package chaos

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// watcher compares what a service says at /_readiness with what it answers to its loads. When all answers were 200 for
// a while, the service has to be ready, and when all were 503, it must not be. A watcher has no opinion on mixtures, on
// a service that has just been started, nor on one that is to end.
type watcher struct {
	service *service
	// fills allows the service to be not ready although it answers 200.
	fills bool
	stop  chan struct{}
	ended sync.WaitGroup

	// untrue counts the polls that disagreed, and sample is one of them. They are for those who have ended the watcher.
	untrue int
	sample string
}

const (
	// watchEvery is how often the service is asked.
	watchEvery = 200 * time.Millisecond
	// watchFor is how long answers have to be alike until the readiness has to follow.
	watchFor = 4 * time.Second
)

// watch begins to watch the service.
func (s *service) watch(fills bool) {
	s.watched = &watcher{service: s, fills: fills, stop: make(chan struct{})}
	s.watched.ended.Go(s.watched.run)
}

// end ends the watcher. It may be called again.
func (w *watcher) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.ended.Wait()
}

func (w *watcher) run() {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-ticker.C:
			w.poll()
		}
	}
}

// poll asks once. The answers have to be alike from long before the question until the answer.
func (w *watcher) poll() {
	serving, safe, alike := w.known()
	if !alike {
		return
	}
	status, body, err := get(w.service.url + "/_readiness")
	then, still, alike := w.known()
	if err != nil || !alike || then != serving || still != safe || w.fills && safe {
		return
	}
	if ready := status == http.StatusOK; ready != safe {
		w.untrue++
		w.sample = fmt.Sprintf("ready=%t although all requests were answered safe=%t: %s", ready, safe, body)
	}
}

// known returns since when the service runs, and what it has answered, if its answers were alike.
func (w *watcher) known() (serving int64, safe, alike bool) {
	now := time.Now()
	serving = w.service.serving.Load()
	if serving == 0 || now.Sub(time.Unix(0, serving)) < watchFor {
		return serving, false, false
	}
	safe, alike = w.service.answers.Uniform(now, watchFor)
	return serving, safe, alike
}
