package module

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
	"github.com/opencapture/capture/modules/terminal"
)

// Progress tells the user on Invocation.Err how far a command has come. It writes nothing within the first second.
// Then, on a terminal, it writes one line anew every second; elsewhere it adds a line every ten seconds.
type Progress struct {
	what     string
	out      io.Writer
	terminal bool
	began    time.Time

	mu          sync.Mutex
	done, total uint64
	timer       *time.Timer
	shown       int // the length of the line that stands on the terminal
	ended       bool
}

const (
	// firstReport is how long a user waits before the first report comes.
	firstReport = time.Second
	// nextReport is the time between two reports where every report stays, which is everywhere but on a terminal.
	nextReport = 10 * time.Second
)

// Progress begins to report how much of a task is done: Progress("records sent") and Set(3, 10) give "3 of 10 records
// sent, 4s". The caller calls End, also after an error.
func (use Invocation) Progress(what string) *Progress {
	p := &Progress{what: what, out: use.Err, terminal: use.Terminal, began: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = panics.AfterFunc(zap.NewNop(), "progress", firstReport, p.report)
	return p
}

// Set says how much is done, and of how much. A total of 0 means that the total is not known.
func (p *Progress) Set(done, total uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
}

// Clear removes the line from the terminal, so that the caller can print something else.
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

// write writes to the user, carriage returns included, and ignores an error.
func (p *Progress) write(text string) { _, _ = io.WriteString(terminal.Raw(p.out), text) }
