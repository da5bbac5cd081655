package module_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/module"
)

// A line that becomes shorter leaves nothing of the longer one behind.
func TestAShorterProgressCoversTheLongerOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		progress := module.Invocation{Err: &screen, Terminal: true}.Progress("records moved")
		progress.Set(5, 10)
		time.Sleep(1500 * time.Millisecond)
		progress.Set(6, 0)
		time.Sleep(time.Second)
		progress.End()
		require.Contains(t, screen.String(), "\r6 records moved, 2s      \r")
	})
}

func TestAListShowsWhatItIsGivenAndNothingThatATerminalObeys(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, module.Invocation{Output: module.JSON, Out: &out}.List().Add("<a&b>"))
	require.Equal(t, "\"<a&b>\"\n", out.String())
	out.Reset()
	list := module.Invocation{Output: module.Table, Out: &out}.List("größe", "b")
	require.NoError(t, list.Add(nil, "1", "\xff"))
	require.NoError(t, list.Flush())
	require.Equal(t, "größe  b\n1      \\ufffd\n", out.String())
}
