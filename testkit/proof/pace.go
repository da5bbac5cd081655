package proof

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Pace sends batches by a timetable. A batch is due at its time whatever has become of those before it, and is sent
// once, then or as soon as its worker is free. A latency counts from the time at which the batch was due. So a service
// that holds requests up cannot have slow answers left out of account because fewer batches are sent meanwhile.
type Pace struct {
	load *Load
	to   func(worker, number int) Target

	mu      sync.Mutex
	answers []Timed
}

// Target is whom a batch is sent to: a service, and the token of a project there.
type Target struct{ URL, Token string }

// Timed is a batch that was due at Due and was answered at At, with Status; 0: there was no answer.
type Timed struct {
	Due, At time.Time
	Status  int
	Target
}

// StartPace starts to send batches of the shape. rate is in events per second, over all workers. to says whom a
// worker's batch is sent to. It is called when the batch is sent, by many goroutines at once.
func StartPace(shape Shape, rate float64, to func(worker, number int) Target) *Pace {
	p := &Pace{load: newLoad(shape, rate), to: to}
	begin := time.Now()
	for worker := range shape.Workers {
		p.load.workers.Go(func() { p.work(worker, begin) })
	}
	return p
}

func (p *Pace) work(worker int, begin time.Time) {
	l := p.load
	turn := float64(time.Second) * float64(l.history.Size()) / l.rate // between two batches of any workers
	var body []byte
	for number := 0; ; number++ {
		due := begin.Add(time.Duration(turn * float64(number*l.history.Workers+worker)))
		if !l.wait(time.Until(due)) {
			return
		}
		to := p.to(worker, number)
		body = l.body(body[:0], to.Token, worker, number)
		answer := l.send(context.Background(), to.URL, body)
		p.mu.Lock()
		p.answers = append(p.answers, Timed{due, answer.To, answer.Status, to})
		p.mu.Unlock()
	}
}

// Answers returns what was answered by now, in the order of the answers.
func (p *Pace) Answers() []Timed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.answers)
}

// Stop ends the pace. It waits for the requests that are on their way.
func (p *Pace) Stop() { p.load.Stop() }
