package observability

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/panics"
)

// reader is the output of a Writer. It can block a write, or refuse it.
type reader struct {
	hold chan struct{} // a write waits until hold is closed; nil: no write waits
	mu   sync.Mutex
	fail error
	got  bytes.Buffer
	most int // the bytes of the largest write
}

func (r *reader) Write(p []byte) (int, error) {
	if r.hold != nil {
		<-r.hold
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return 0, r.fail
	}
	r.most = max(r.most, len(p))
	return r.got.Write(p)
}

func (r *reader) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

func (r *reader) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got.String()
}

func missingIs(lines int) []byte { return fmt.Appendf(nil, "%d missing\n", lines) }

func put(t *testing.T, w *Writer, line string) {
	n, err := io.WriteString(w, line)
	require.NoError(t, err)
	require.Len(t, line, n)
}

func TestLinesAreWrittenInOrderAndWhole(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := &reader{}
	w := newWriter(out, missingIs)
	var want strings.Builder
	for n := range 10_000 {
		line := fmt.Sprintln("line", n, strings.Repeat("x", n%100))
		want.WriteString(line)
		put(t, w, line)
	}
	long := strings.Repeat("y", 3*maxWrite) + "\n"
	want.WriteString(long)
	put(t, w, long)
	require.NoError(t, w.Sync())
	require.Equal(t, want.String(), out.text())
	require.Equal(t, len(long), out.most)
	require.Zero(t, w.Dropped())
}

func TestAReaderThatStopsToReadCostsLinesAndNoTime(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := &reader{hold: make(chan struct{})}
	w := newWriter(out, missingIs)
	line := strings.Repeat("x", 1023) + "\n"
	const lines = 3 * maxWaiting / 1024
	for range lines {
		put(t, w, line)
	}
	dropped := w.Dropped()
	require.GreaterOrEqual(t, dropped, int64(maxWaiting/1024), "what waits is bounded")
	require.LessOrEqual(t, dropped, int64(2*maxWaiting/1024))
	require.ErrorIs(t, w.Sync(), errUnread, "a flush ends, too")

	close(out.hold)
	require.Eventually(t, func() bool { return w.Sync() == nil }, patience, 1, "however slow the machine is")
	require.Equal(t, strings.Repeat(line, int(lines-dropped))+fmt.Sprintf("%d missing\n", dropped), out.text())
	put(t, w, "after\n")
	require.Eventually(t, func() bool { return w.Sync() == nil }, patience, 1)
	require.True(t, strings.HasSuffix(out.text(), "missing\nafter\n"), "it is said once")
	require.Equal(t, dropped, w.Dropped())
}

func TestLinesThatCannotBeWrittenAreCountedAndToldOfOnceTheyCan(t *testing.T) {
	defer goleak.VerifyNone(t)
	out := &reader{}
	w := newWriter(out, missingIs)
	out.set(syscall.ENOSPC)
	for range 3 {
		put(t, w, "lost\n")
		require.NoError(t, w.Sync())
	}
	require.EqualValues(t, 3, w.Dropped())
	out.set(nil)
	put(t, w, "works\n")
	require.NoError(t, w.Sync())
	require.Equal(t, "works\n3 missing\n", out.text())
}

func TestAMissingLineIsALineOfTheLog(t *testing.T) {
	for format, want := range map[string]string{
		"json": `{"level":"warn","timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","logger":"observability",` +
			`"msg":"log lines are missing here: they could not be written","fields":{"lines":\d+}}`,
		"console": `\d\d:\d\d:\d\d\tWARN\tobservability\t` +
			`log lines are missing here: they could not be written\t{"lines": \d+}`,
	} {
		read, write, err := os.Pipe()
		require.NoError(t, err)
		log, w, err := NewLogger(configs.Fixed(Config{Log: LogConfig{Level: "debug", Format: format}}), write)
		require.NoError(t, err)
		for w.Dropped() == 0 { // nobody reads the pipe
			log.Debug(strings.Repeat("x", 1000))
		}
		text := make(chan string)
		go func() {
			got, _ := io.ReadAll(read)
			text <- string(got)
		}()
		require.Eventually(t, func() bool { return w.Sync() == nil }, patience, 1)
		require.NoError(t, write.Close())
		require.Regexp(t, `\n`+want+`\n$`, <-text)
	}
}

func TestDroppedLinesAreAMetric(t *testing.T) {
	out := &reader{}
	out.set(syscall.EPIPE)
	w := newWriter(out, missingIs)
	registry := prometheus.NewRegistry()
	require.NoError(t, registry.Register(newDroppedLines(w)))
	value := func() float64 {
		family := gather(t, registry)["capture_observability_log_lines_dropped_total"]
		return family.GetMetric()[0].GetCounter().GetValue()
	}
	require.Zero(t, value())
	put(t, w, "lost\n")
	require.NoError(t, w.Sync())
	require.InDelta(t, 1, value(), 0)
}

func TestTheLoggerIsSafeForConcurrentUse(t *testing.T) {
	log, written := logTo(t, LogConfig{Level: "debug", Format: "json"})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for n := range 100 {
				log.Info("line", zap.Int("n", n))
				_ = log.Sync()
			}
		})
	}
	all.Wait()
	require.Equal(t, 800, strings.Count(written(), `"msg":"line"`))
}

// panicky is an output whose first writes panic.
type panicky struct {
	reader
	left int
}

func (p *panicky) Write(lines []byte) (int, error) {
	if p.left--; p.left >= 0 {
		panic("no paper")
	}
	return p.reader.Write(lines)
}

func TestAnOutputThatPanicsCostsItsLinesAlone(t *testing.T) {
	defer goleak.VerifyNone(t)
	before := panics.Count()
	out := &panicky{left: 2}
	w := newWriter(out, missingIs)
	for range 2 {
		put(t, w, "lost\n")
		require.NoError(t, w.Sync())
	}
	put(t, w, "kept\n")
	require.NoError(t, w.Sync())
	require.Equal(t, "kept\n2 missing\n", out.text())
	require.EqualValues(t, 2, w.Dropped())
	require.Equal(t, before+2, panics.Count())
}
