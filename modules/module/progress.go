package module

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

// Progress tells the user how far a command has come, on Invocation.Err: never within the first second, then on a
// line that is written anew every second where that is a terminal, and elsewhere on a line every ten seconds.
type Progress struct {
	what     string
	out      io.Writer
	terminal bool
	began    time.Time

	mu          sync.Mutex
	done, total uint64
	timer       *time.Timer
	shown       int // how long the line is that stands on the terminal
	ended       bool
}

const (
	// firstReport is after how long somebody who waits wants to know what for.
	firstReport = time.Second
	// nextReport is how long after a report the next one comes where all of them stay.
	nextReport = 10 * time.Second
)

// Progress begins to tell how much of something is done: "3 of 10 records sent, 4s" is Progress("records sent") after
// Set(3, 10). The caller calls End, also after an error.
func (use Invocation) Progress(what string) *Progress {
	p := &Progress{what: what, out: use.Err, terminal: use.Terminal, began: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = panics.AfterFunc(zap.NewNop(), "progress", firstReport, p.report)
	return p
}

// Set says how much is done, and of how much; a total of 0 is one that nobody knows.
func (p *Progress) Set(done, total uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
}

// Clear takes the line off the terminal, where the caller is about to print something else.
func (p *Progress) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

// End ends the reports.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.timer.Stop()
	p.clear()
}

func (p *Progress) clear() {
	if p.shown > 0 {
		p.write("\r" + strings.Repeat(" ", p.shown) + "\r")
		p.shown = 0
	}
}

func (p *Progress) report() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	line := fmt.Sprintf("%d %s, %s", p.done, p.what, time.Since(p.began).Round(time.Second))
	if p.total > 0 {
		line = fmt.Sprintf("%d of %d %s, %s", p.done, p.total, p.what, time.Since(p.began).Round(time.Second))
	}
	if p.terminal {
		p.write("\r" + line + strings.Repeat(" ", max(0, p.shown-len(line))))
		p.shown = len(line)
		p.timer.Reset(firstReport)
		return
	}
	p.write(line + "\n")
	p.timer.Reset(nextReport)
}

// write writes to the user. Where that cannot be done, nobody waits for it.
func (p *Progress) write(text string) { _, _ = io.WriteString(p.out, text) }
