package module_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/module"
)

// work does a number of records, one every 100 ms, and sets its progress after each.
func work(use module.Invocation, records, total uint64) {
	progress := use.Progress("records moved")
	defer progress.End()
	time.Sleep(time.Millisecond) // so that no record is done at the time of a report
	for done := range records {
		time.Sleep(100 * time.Millisecond)
		progress.Set(done+1, total)
	}
}

func TestProgressIsToldOfWhatTakesLongerThanASecond(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		terminal       bool
		records, total uint64
		want           string
	}{
		"fast":                {false, 9, 9, ""},
		"fast, on a terminal": {true, 9, 9, ""},
		"slow":                {false, 115, 200, "9 of 200 records moved, 1s\n109 of 200 records moved, 11s\n"},
		"of an unknown total": {false, 15, 0, "9 records moved, 1s\n"},
		"slow, on a terminal": {true, 25, 30, "\r9 of 30 records moved, 1s\r19 of 30 records moved, 2s\r" +
			strings.Repeat(" ", 26) + "\r"},
		"unknown, a terminal": {true, 15, 0, "\r9 records moved, 1s\r" + strings.Repeat(" ", 19) + "\r"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out, err bytes.Buffer
				work(module.Invocation{Out: &out, Err: &err, Terminal: test.terminal}, test.records, test.total)
				time.Sleep(time.Minute) // no report comes after the end
				require.Equal(t, test.want, err.String())
				require.Empty(t, out.String(), "what is found and how far the search is are two things")
			})
		})
	}
}

func TestProgressMakesRoomForALineOnTheTerminal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		progress := module.Invocation{Err: &screen, Terminal: true}.Progress("records moved")
		progress.Clear()
		require.Empty(t, screen.String(), "there is nothing to make room for")
		progress.Set(5, 0)
		time.Sleep(1500 * time.Millisecond)
		progress.Clear()
		fmt.Fprintln(&screen, "a line")
		progress.End()
		require.Equal(t, "\r5 records moved, 1s\r"+strings.Repeat(" ", 19)+"\ra line\n", screen.String())
	})
}

func TestATableIsAlignedThoughItIsPrintedInParts(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	list := module.Invocation{Output: module.Table, Out: &out}.List("name", "size")
	require.NoError(t, list.Add(nil, "a long name", 1))
	require.NoError(t, list.Flush())
	require.NoError(t, list.Add(nil, "short", ""))
	require.NoError(t, list.Add(nil, "größer", "a\nb"))
	require.NoError(t, list.Flush())
	require.Equal(t, "name         size\na long name  1\nshort        -\ngrößer       a\\nb\n", out.String())

	out.Reset()
	for i := range 2500 {
		require.NoError(t, list.Add(nil, i, i))
	}
	require.Equal(t, 2000, strings.Count(out.String(), "\n"), "a long list is not kept in memory")
}

// deaf is a writer whose reader never reads.
type deaf struct{}

func (deaf) Write([]byte) (int, error) { return 0, errors.New("nobody reads") }

func TestAListThatCannotBePrintedSaysSo(t *testing.T) {
	t.Parallel()
	require.EqualError(t, module.Invocation{Output: module.JSON, Out: deaf{}}.List().Add(1),
		"print a list: nobody reads")
	table := module.Invocation{Output: module.Table, Out: deaf{}}.List("a")
	require.EqualError(t, table.Flush(), "print a list: nobody reads")
}
