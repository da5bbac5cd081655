package quota

import (
	"context"
	"encoding/gob"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
)

// childDir is the environment variable that makes the test binary a process that judges events until it is killed. Its
// value is the directory of the journal.
const childDir = "CAPTURE_TEST_QUOTA_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// The limits of the child's tokens.
const (
	childLimit  = 20_000
	childTokens = 3
	childBatch  = 20
)

func childLimits() *events.Limits {
	return quotas(fmt.Sprintf("events=%d/month", childLimit), "events=1000000/day")
}

func childToken(i int) string { return fmt.Sprintf("phc_%d", i) }

// message is what the child tells its parent: a draw, which the parent makes and answers, or how many events have
// passed.
type message struct {
	Token  string
	Quotas []store.QuotaDraw
	Passed int
}

// remote is the parent's store, for the child.
type remote struct {
	store.Store
	mu  sync.Mutex
	out *gob.Encoder
	in  *gob.Decoder
}

func (r *remote) Take(_ context.Context, token string, quotas []store.QuotaDraw, _ []store.RateDraw) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.out.Encode(message{Token: token, Quotas: quotas}); err != nil {
		return err
	}
	var answer []store.QuotaDraw
	if err := r.in.Decode(&answer); err != nil {
		return err
	}
	copy(quotas, answer)
	return nil
}

func (*remote) Now() time.Time   { return time.Now() }
func (*remote) HasPostHog() bool { return false }

// passed tells that events have passed.
func (r *remote) passed(token string, n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Encode(message{Token: token, Passed: n})
}

// child judges events in several goroutines, gives some of them back, and tells how many have passed.
func child(dir string) {
	exit := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	parent := &remote{out: gob.NewEncoder(os.Stdout), in: gob.NewDecoder(os.Stdin)}
	q, err := New(configs.Fixed(in(dir, func(c *Config) { c.OnStoreFailure = failClosed })), parent, zap.NewNop(),
		tally.NoopScope)
	if err != nil {
		exit(err)
	}
	if err := q.Start(context.Background()); err != nil || q.journal.fault != nil {
		exit(fmt.Errorf("start: %w, %w", err, q.journal.fault))
	}
	limits := childLimits()
	for worker := range 3 {
		go func() {
			for i := worker; ; i++ {
				batch := batchOf(childToken(i%childTokens), limits, 1+rand.IntN(childBatch))
				settle, _ := q.Process(context.Background(), batch)
				if n := batch.Pending(); i%5 != 0 && n > 0 {
					if err := parent.passed(batch.Token, n); err != nil {
						exit(err)
					}
					accept(batch, settle)
				} else {
					fail(batch, settle)
				}
			}
		}()
	}
	select {}
}

// killed runs a child on the shared store, and kills it after so many messages and a moment. It counts the events that
// have passed.
func (n *nodes) killed(dir string, messages int, moment time.Duration, passed map[string]int) {
	n.t.Helper()
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), childDir+"="+dir)
	process.Stderr = os.Stderr
	stdin, err := process.StdinPipe()
	require.NoError(n.t, err)
	stdout, err := process.StdoutPipe()
	require.NoError(n.t, err)
	require.NoError(n.t, process.Start())
	in, out := gob.NewDecoder(stdout), gob.NewEncoder(stdin)
	for heard := 0; ; heard++ {
		var m message
		if err := in.Decode(&m); err != nil {
			break // the kill has cut it off
		}
		if heard == messages {
			time.AfterFunc(moment, func() { _ = process.Process.Kill() })
		}
		if m.Passed > 0 {
			passed[m.Token] += m.Passed
			continue
		}
		require.NoError(n.t, n.store.Take(n.t.Context(), m.Token, m.Quotas, nil))
		_ = out.Encode(m.Quotas) // the child may be dead
	}
	var exited *exec.ExitError
	require.ErrorAs(n.t, process.Wait(), &exited)
	require.Equal(n.t, "signal: killed", exited.Error())
}

// At whatever moment the process is killed: never more events pass than the limit allows, and what is lost is no more
// than what was on its way at that moment.
func TestKillsAtAnyMomentLetNothingPassTwice(t *testing.T) {
	t.Parallel()
	shared, dir := newStore(t), t.TempDir()
	passed := map[string]int{}
	const kills = 12
	for range kills {
		shared.killed(dir, 20+rand.IntN(300), time.Duration(rand.IntN(3000))*time.Microsecond, passed)
	}
	last := shared.start(dir, func(c *Config) { c.OnStoreFailure = failClosed })
	require.NoError(t, last.journal.fault)
	limits := childLimits()
	for i := range childTokens {
		token := childToken(i)
		require.Positive(t, passed[token])
		require.Less(t, passed[token], childLimit, "the test is not to reach the limit before its end")
		for n := 1; n > 0; {
			n = last.send(token, limits, 1000)
			passed[token] += n
		}
		require.LessOrEqual(t, passed[token], childLimit)
		// Three requests are judged at a time, and each may lose a batch, and a draw with what is ahead.
		onTheWay := kills * 3 * (2*childBatch + childLimit/unspentShare/nodesTogether)
		require.GreaterOrEqual(t, passed[token], childLimit-onTheWay)
		t.Logf("%s: %d passed, %d were lost in %d kills", token, passed[token], childLimit-passed[token], kills)
	}
}
