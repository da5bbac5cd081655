package spool

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// childDir is the environment variable that makes the test binary a process that appends until it is killed. Its value
// is the directory of the spool.
const childDir = "CAPTURE_TEST_SPOOL_CHILD_DIR"

func childConfig(dir string) Config {
	return Config{Dir: dir, MaxBytes: 1 << 30, SegmentBytes: 8 << 10, MaxPending: 1 << 20}
}

// child appends its records from several goroutines and prints the number of each record once it is acknowledged.
func child(dir string) {
	exit := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s, err := Open(childConfig(dir), zap.NewNop())
	if err != nil {
		exit(err)
	}
	for range 3 {
		go func() {
			for {
				first, err := s.Log("topic").Append(context.Background(), payloads("one", "two"))
				if err != nil {
					exit(err)
				}
				fmt.Printf("%d\n%d\n", first, first+1)
			}
		}()
	}
	select {}
}

// runChild kills the child once it has acknowledged so many records, and returns their numbers.
func runChild(t *testing.T, dir string, records int, meanwhile func()) map[uint64]bool {
	t.Helper()
	killed := exec.Command(os.Args[0])
	killed.Env = append(os.Environ(), childDir+"="+dir)
	killed.Stderr = os.Stderr
	out, err := killed.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, killed.Start())
	acknowledged := map[uint64]bool{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var seq uint64
		if _, err := fmt.Sscan(lines.Text(), &seq); err != nil {
			break // the kill has cut this line off
		}
		require.False(t, acknowledged[seq], "a number is given once")
		acknowledged[seq] = true
		if len(acknowledged) == records {
			meanwhile()
			require.NoError(t, killed.Process.Kill())
		}
	}
	var exited *exec.ExitError
	require.ErrorAs(t, killed.Wait(), &exited)
	require.GreaterOrEqual(t, len(acknowledged), records)
	return acknowledged
}

func TestAcknowledgedRecordsSurviveKillingTheProcess(t *testing.T) {
	dir := t.TempDir()
	kept := map[uint64]bool{}
	for range 3 { // the later rounds run on the files of a killed process
		acknowledged := runChild(t, dir, 300, func() {
			_, err := Open(childConfig(dir), zap.NewNop())
			require.ErrorIs(t, err, ErrInUse)
			require.ErrorContains(t, err, dir)
		})
		for seq := range acknowledged {
			require.False(t, kept[seq])
			kept[seq] = true
		}
		s := openSpool(t, childConfig(dir))
		l := s.Log("topic")
		read := map[uint64]bool{}
		for _, r := range readAll(t, l, 5000) {
			require.Contains(t, []string{"one", "two"}, r.value)
			require.False(t, read[r.seq])
			read[r.seq] = true
		}
		for seq := range kept {
			require.True(t, read[seq] || seq < l.Stats().First, "record %d is missing", seq)
		}
		require.Zero(t, l.Stats().CorruptRegions)
		l.DoneRange(l.Stats().First, l.Stats().First+100)
		require.NoError(t, s.Close())
	}
}
