package local

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/store"
)

// childDir is the environment variable that makes the test binary a process that uses a store until it is killed. Its
// value is the directory of the store.
const childDir = "CAPTURE_TEST_STORE_CHILD_DIR"

// childDraw is the draw of one of the child's nodes.
func childDraw(node int, granted int64) store.QuotaDraw {
	return store.QuotaDraw{
		Counter: "quota:events:month", Node: fmt.Sprint("node-", node), Granted: granted,
		Limit: 1 << 40, Need: 3, Extra: 2, Unspent: 1000,
		Start: time.Now().Add(-time.Hour), End: time.Unix(1<<33, 0),
	}
}

// childDigest is a digest of the child.
func childDigest(n uint64) (d store.Digest) {
	binary.BigEndian.PutUint64(d[:], n)
	return d
}

// child draws, settles and puts from several goroutines, and prints what is safe: each draw when Take has returned,
// each digest when the writer has written it.
func child(dir string) {
	exit := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s := New(roomy(dir, nil), zap.NewNop(), tally.NoopScope)
	ctx := context.Background()
	if err := s.Start(ctx); err != nil {
		exit(err)
	}
	usage, err := s.Usage(ctx, "token")
	if err != nil {
		exit(err)
	}
	known := usage["quota:events:month"].Used
	fmt.Println("used", known)
	for node := range 3 {
		go func() {
			granted := int64(0)
			for n := 0; ; n++ {
				quotas := []store.QuotaDraw{childDraw(os.Getpid()*3+node, granted)}
				rates := []store.RateDraw{{Counter: "rate", Interval: time.Minute, Burst: 1 << 20, Need: 1}}
				if err := s.Take(ctx, "token", quotas, rates); err != nil {
					exit(err)
				}
				fmt.Println("take", quotas[0].Given-granted)
				granted = quotas[0].Given
			}
		}()
	}
	go func() {
		for n := uint64(os.Getpid()) << 32; ; n++ {
			s.Settle("token", 1, []store.Digest{childDigest(n)}, time.Hour, nil)
			for s.digestLog.left() > 0 {
				time.Sleep(time.Millisecond)
			}
			fmt.Println("done", n)
		}
	}()
	for n := 0; ; n++ {
		before := store.Fields(nil)
		if n > 0 {
			before = store.Fields{"n": fmt.Sprint(n - 1)}
		}
		name := fmt.Sprint("record-", os.Getpid())
		if err := s.Put(ctx, "project", name, before, store.Fields{"n": fmt.Sprint(n)}); err != nil {
			exit(err)
		}
		fmt.Println("put", name, n)
	}
}

// What a call has said is kept after a kill -9, and nothing is there that nobody has asked for.
func TestNothingIsResetByKillingTheProcess(t *testing.T) {
	dir := t.TempDir()
	var done []uint64
	puts := map[string]int{}
	used, takes := int64(0), int64(0)
	for round := range 4 { // the later rounds run on the files of a killed process
		killed := exec.CommandContext(t.Context(), os.Args[0])
		killed.Env = append(os.Environ(), childDir+"="+dir)
		killed.Stderr = os.Stderr
		out, err := killed.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, killed.Start())
		lines, taken, dones, records := bufio.NewScanner(out), int64(0), 0, 0
		for lines.Scan() {
			var number int64
			var id uint64
			var name string
			switch {
			case scan(lines.Text(), "used %d", &number):
				// The answers to up to three draws of the killed process were never read: they may have been made.
				require.GreaterOrEqual(t, number, used)
				require.LessOrEqual(t, number, used+3*5)
				used = number
			case scan(lines.Text(), "take %d", &number):
				taken += number
				takes++
			case scan(lines.Text(), "done %d", &id):
				done = append(done, id)
				dones++
			case scan(lines.Text(), "put %s %d", &name, &number):
				puts[name] = int(number)
				records++
			default:
				continue // the kill has cut this line off
			}
			if taken > 100 && dones > round && records > round {
				_ = killed.Process.Kill() // once or more often
			}
		}
		var exited *exec.ExitError
		require.ErrorAs(t, killed.Wait(), &exited)
		require.Equal(t, -1, exited.ExitCode(), "it was killed")
		used += taken
	}

	s := started(t, New(roomy(dir, nil), zap.NewNop(), tally.NoopScope))
	ctx := t.Context()
	usage, err := s.Usage(ctx, "token")
	require.NoError(t, err)
	require.GreaterOrEqual(t, usage["quota:events:month"].Used, used)
	rates := []store.RateDraw{{Counter: "rate", Interval: time.Minute, Burst: 1 << 20}}
	require.NoError(t, s.Take(ctx, "token", nil, rates))
	require.LessOrEqual(t, rates[0].Left, 1<<20-takes)
	require.Positive(t, takes)
	claims := make([]store.Claim, 1)
	for _, n := range done {
		require.NoError(t, s.Reserve(ctx, "token", 2, []store.Digest{childDigest(n)}, time.Minute, claims))
		require.Equal(t, store.Done, claims[0])
	}
	require.NoError(t, s.Reserve(ctx, "token", 2, []store.Digest{childDigest(1)}, time.Minute, claims))
	require.Equal(t, store.Reserved, claims[0])
	require.Len(t, puts, 4)
	for name, n := range puts {
		fields, err := s.Get(ctx, "project", name)
		require.NoError(t, err)
		require.GreaterOrEqual(t, fields["n"], "0")
		var is int
		require.True(t, scan(fields["n"], "%d", &is))
		require.GreaterOrEqual(t, is, n)
	}
}

func scan(line, format string, into ...any) bool {
	_, err := fmt.Sscanf(line, format, into...)
	return err == nil
}
