//go:build chaos && linux

package chaos

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/opencapture/capture/testkit/process"
)

// watcher compares the readiness of a service with its answers to its loads. When all answers were 200 for a while, the
// service has to be ready. When all were 503, it must not be ready. A watcher has no opinion on mixtures, nor on a
// service that has just been started or is about to end.
type watcher struct {
	service *service
	// fills allows the service not to be ready although it answers 200.
	fills bool
	stop  chan struct{}
	ended sync.WaitGroup

	// untrue counts the polls in which the two disagreed and had done so for long, and sample is one of them. Read them
	// only after the watcher's end.
	untrue int
	sample string
	// since is when the two began to disagree. Zero: they did not at the last poll.
	since time.Time
}

const (
	// watchEvery is how often the watcher asks the service.
	watchEvery = 200 * time.Millisecond
	// watchFor is how long answers have to be alike before the watcher asks, and watchSlack how long the readiness may
	// then say something else. When a fault ends, the service is ready before the load has its first good answer.
	watchFor   = 3 * time.Second
	watchSlack = 2 * time.Second
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
	since := w.since
	w.since = time.Time{}
	serving, safe, alike := w.known()
	if !alike {
		return
	}
	asked := time.Now()
	status, body, err := process.Get(w.service.url + "/_readiness")
	then, still, alike := w.known()
	if err != nil || !alike || then != serving || still != safe || w.fills && safe {
		return
	}
	ready := status == http.StatusOK
	if ready == safe {
		return
	}
	// Answers that change make a disagreement end, since they are not alike then.
	if w.since = since; since.IsZero() {
		w.since = asked
	}
	if asked.Sub(w.since) >= watchSlack {
		w.untrue++
		w.sample = fmt.Sprintf("ready=%t although all requests were answered safe=%t: %s", ready, safe, body)
	}
}

// known returns since when the service runs, and which answer it has given, if its answers were alike.
func (w *watcher) known() (serving int64, safe, alike bool) {
	now := time.Now()
	serving = w.service.serving.Load()
	if serving == 0 || now.Sub(time.Unix(0, serving)) < watchFor {
		return serving, false, false
	}
	safe, alike = w.service.answers.Uniform(now, watchFor)
	return serving, safe, alike
}
