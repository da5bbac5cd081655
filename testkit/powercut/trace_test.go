package powercut

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sample is output of strace 6.1. A thread's call is interrupted by another thread's, one call fails, and one is not
// answered.
const sample = `19580 1795971303.759616111 ` +
	`openat(AT_FDCWD, "\x2f\x65\x22", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3 <0.000038377>
19592 1795971304.083816872 write(3, "\x7b\x22\x2c", 3 <unfinished ...>
19590 1795971304.085102599 unlinkat(AT_FDCWD, "\x64", 0) = -1 ENOENT (No such file or directory) <0.000010456>
19592 1795971304.085110000 <... write resumed>) = 2 <0.001293128>
19590 1795971304.090000000 writev(3, [{iov_base="\x61\x62", iov_len=2}, ` +
	`{iov_base="\x63", iov_len=1}], 2) = 3 <0.000010000>
1     1795971304.090000000 close(3)     = 0 <0.000033611>
19590 1795971304.091000000 fsync(5 <unfinished ...>
19592 1795971304.092000000 +++ killed by SIGKILL +++
19590 1795971304.092000001 <... fsync resumed>) = ?
19590 1795971304.093000000 fsync(6 <unfinished ...>
19590 1795971304.093000001 ???( <unfinished ...>
19590 1795971304.093000002 <... ??? resumed>) = ?
19591 1795971304.093000003 syscall_0x18e4(0, 0x3c2d8ac16000, 0x112, 0, 0, 0 <unfinished ...>
19591 1795971304.093000004 <... syscall_0x18e4 resumed>) = ?
19593 1795971304.093000005 pwrite64(4, "\x61", 1, 7 <detached ...>
19580 1795971304.094000000 +++ killed by SIGKILL +++
`

func TestParseReadsWhatStracePrints(t *testing.T) {
	steps, err := Parse([]byte(sample), 7)
	require.NoError(t, err)
	type seen struct {
		name  string
		ended bool
	}
	var order []seen
	calls := map[string]*Call{}
	for _, step := range steps {
		order = append(order, seen{step.Name, step.Ended})
		calls[step.Name] = step.Call
		require.Equal(t, 7, step.Run)
	}
	require.Equal(t, []seen{
		{"openat", false}, {"openat", true},
		{"write", false}, {"unlinkat", false}, {"unlinkat", true}, {"write", true},
		{"writev", false}, {"writev", true}, {"close", false}, {"close", true},
		{"fsync", false}, {"fsync", true}, {"fsync", false}, {"pwrite64", false},
	}, order)
	require.True(t, calls["pwrite64"].Unanswered)
	require.Equal(t, []string{"4", `"\x61"`, "1", "7"}, calls["pwrite64"].Args)

	require.Equal(t, []string{"AT_FDCWD", `"\x2f\x65\x22"`, "O_RDWR|O_CREAT|O_CLOEXEC", "0600"}, calls["openat"].Args)
	require.EqualValues(t, 3, calls["openat"].Result)
	require.True(t, steps[1].At.Equal(time.Unix(1795971303, 759616111+38377)),
		"a call that nothing interrupts ends when its time is over")
	require.EqualValues(t, 2, calls["write"].Result)
	require.False(t, calls["write"].Unanswered)
	require.True(t, steps[5].At.Equal(time.Unix(1795971304, 85110000)),
		"a call that was interrupted ends at the time of that line")
	require.True(t, calls["unlinkat"].Failed)
	data, err := texts(calls["writev"].Args[1])
	require.NoError(t, err)
	require.Equal(t, "abc", string(data))
	require.True(t, steps[10].Unanswered && steps[12].Unanswered)
	require.Equal(t, `before openat(AT_FDCWD, "/e\"", O_RDWR|O_CREAT|O_CLOEXEC, 0600)`, steps[0].String())
}

func TestParseRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, line := range []string{
		"",
		"1",
		"1 yesterday close(3) = 0 <0.000033611>",
		"1 1795971304.09 close(3) = 0 <0.000033611>",
		"1 1795971304.090000000 close",
		"1 1795971304.090000000 close(3)",
		"1 1795971304.090000000 close(3) = zero <0.000033611>",
		"1 1795971304.090000000 close(3) = 0 <quick>",
		"1 1795971304.090000000 close(3) = 0",
		"1 1795971304.090000000 <... close resumed>) = 0 <0.000033611>",
	} {
		_, err := Parse([]byte(line+"\n"), 0)
		require.ErrorContains(t, err, "line 1: this is not what strace prints", line)
	}
	for _, arg := range []string{`"\x61"...`, `61`, `"\x6"`, `"\x6g"`, `"a\x6"`} {
		_, err := text(arg)
		require.Error(t, err, arg)
	}
	_, err := texts(`[{iov_base="\x61"..., iov_len=7}]`)
	require.ErrorContains(t, err, "a string is not whole")
}
