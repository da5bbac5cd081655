package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Call is a system call of a traced program.
type Call struct {
	// Run numbers the processes that used the directory one after the other.
	Run  int
	Name string
	// Args are the arguments as strace prints them.
	Args []string
	// Result is the return value of the call. It means nothing if Failed or Unanswered is set.
	Result int64
	// Failed says that the call returned an error.
	Failed bool
	// Unanswered says that the process ended before the call returned. Nobody knows what the call has done.
	Unanswered bool
}

// Step is the moment at which the kernel began a call, or at which the call had returned. A call takes effect between
// its two steps.
type Step struct {
	*Call
	// Ended says that the call has returned.
	Ended bool
	// At is the time of the step, by the clock that the clients use as well. It is not later than the real time of the
	// step.
	At time.Time
}

// String describes the step for a human. It cuts long arguments.
func (s Step) String() string {
	const longest = 60
	args := make([]string, len(s.Args))
	for i, arg := range s.Args {
		if text, err := text(arg); err == nil {
			arg = strconv.Quote(string(text[:min(len(text), longest)]))
		}
		args[i] = arg[:min(len(arg), 4*longest)]
	}
	when := "before"
	if s.Ended {
		when = "at the end of"
	}
	return fmt.Sprintf("%s %s(%s)", when, s.Name, strings.Join(args, ", "))
}

// Options returns the options of strace, except for -o, with which strace prints what Parse reads.
func Options() []string {
	return []string{
		"-f", "--seccomp-bpf", "-q", "-xx", "-s", strconv.Itoa(longestString),
		"--absolute-timestamps=format:unix,precision:ns", "--syscall-times=ns",
		"-e", "signal=none", "-e", "trace=" + strings.Join(traced, ","),
	}
}

// longestString is how many bytes of a buffer strace prints.
const longestString = 64 << 20

// traced holds the calls that a disk knows, and the calls that it refuses because they may change files in a way that
// it does not know.
var traced = []string{
	"open", "openat", "openat2", "creat", "close", "dup", "dup2", "dup3", "lseek",
	"write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "splice",
	"truncate", "ftruncate", "fallocate", "fsync", "fdatasync",
	"mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat",
	"symlink", "symlinkat",
	"io_uring_setup",
}

// Parse reads the output of strace with Options about one process and its threads. It returns the steps in the order in
// which strace saw them. strace stops a thread at each step, so everything that a thread does because of a step comes
// after that step.
func Parse(trace []byte, run int) ([]Step, error) {
	var steps []Step
	open := map[string]*Call{} // by thread
	number := 0
	for line := range bytes.Lines(trace) {
		number++
		if err := parseLine(strings.TrimSuffix(string(line), "\n"), run, open, &steps); err != nil {
			return nil, fmt.Errorf("line %d: %w: %.200s", number, err, line)
		}
	}
	return steps, nil
}

var errLine = errors.New("this is not what strace prints")

const (
	unfinished = " <unfinished ...>"
	// detached stands in the place of unfinished where the process was killed in the call, and strace with it.
	detached = " <detached ...>"
	resumed  = " resumed>"
)

func parseLine(line string, run int, open map[string]*Call, steps *[]Step) error {
	thread, rest, found := strings.Cut(line, " ")
	if !found {
		return errLine
	}
	stamp, rest, found := strings.Cut(strings.TrimLeft(rest, " "), " ")
	if !found {
		return errLine
	}
	at, err := parseTime(stamp)
	if err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(rest, "+++ "), strings.HasPrefix(rest, "--- "):
		return nil
	case strings.HasPrefix(rest, "???("), strings.HasPrefix(rest, "<... ??? resumed>"),
		strings.HasPrefix(rest, "syscall_0x"), strings.HasPrefix(rest, "<... syscall_0x"):
		// The process was killed before the call began, and what strace has read of the thread is no call or a number
		// that stands for none. Calls that strace does not know by a name are not among those that it was to show.
		return nil
	case strings.HasPrefix(rest, "<... "):
		call := open[thread]
		_, tail, found := strings.Cut(rest, resumed)
		if call == nil || !found {
			return errLine
		}
		delete(open, thread)
		if _, err := call.parseResult(tail); err != nil {
			return err
		}
		*steps = append(*steps, Step{Call: call, Ended: true, At: at})
		return nil
	}
	name, rest, found := strings.Cut(rest, "(")
	if !found {
		return errLine
	}
	call := &Call{Run: run, Name: name}
	*steps = append(*steps, Step{Call: call, At: at})
	args, cut := strings.CutSuffix(rest, unfinished)
	if !cut {
		args, cut = strings.CutSuffix(rest, detached)
	}
	if cut {
		call.Args = splitArgs(strings.TrimSuffix(args, ","))
		call.Unanswered = true // until the call is resumed
		open[thread] = call
		return nil
	}
	// Strings hold no bare parenthesis: strace escapes all their characters.
	end := strings.IndexByte(rest, ')')
	if end < 0 {
		return errLine
	}
	call.Args = splitArgs(rest[:end])
	took, err := call.parseResult(rest[end:])
	if err != nil {
		return err
	}
	*steps = append(*steps, Step{Call: call, Ended: true, At: at.Add(took)})
	return nil
}

// parseTime reads seconds and nanoseconds since 1970.
func parseTime(stamp string) (time.Time, error) {
	seconds, fraction, found := strings.Cut(stamp, ".")
	if !found || len(fraction) != 9 {
		return time.Time{}, errLine
	}
	s, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}, errLine
	}
	n, err := strconv.ParseInt(fraction, 10, 64)
	if err != nil {
		return time.Time{}, errLine
	}
	return time.Unix(s, n), nil
}

// parseResult reads the text behind the arguments: ") = 3 <0.000016>", ") = -1 ENOENT (No such file) <0.000010>" or ")
// = ?".
func (c *Call) parseResult(tail string) (took time.Duration, err error) {
	_, result, found := strings.Cut(tail, "= ")
	if !found {
		return 0, errLine
	}
	result, duration, timed := strings.Cut(result, "<")
	value, _, _ := strings.Cut(strings.TrimSpace(result), " ")
	c.Unanswered = value == "?"
	if c.Unanswered {
		return 0, nil
	}
	if c.Result, err = strconv.ParseInt(value, 0, 64); err != nil {
		return 0, errLine
	}
	c.Failed = c.Result < 0
	if !timed {
		return 0, errLine
	}
	if took, err = time.ParseDuration(strings.TrimSuffix(duration, ">") + "s"); err != nil {
		return 0, errLine
	}
	return took, nil
}

// splitArgs splits at the commas that are in no string and in no brackets. In strings all characters but the quotes are
// escaped.
func splitArgs(text string) []string {
	var args []string
	depth, quoted, start := 0, false, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			quoted = !quoted
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case ',':
			if depth == 0 && !quoted {
				args = append(args, strings.TrimSpace(text[start:i]))
				start = i + 1
			}
		}
	}
	if rest := strings.TrimSpace(text[start:]); rest != "" {
		args = append(args, rest)
	}
	return args
}

// text returns the bytes of a string argument: "\x2f\x65".
func text(arg string) ([]byte, error) {
	inner, found := strings.CutPrefix(arg, `"`)
	if !found {
		return nil, errLine
	}
	if inner, found = strings.CutSuffix(inner, `"`); !found {
		return nil, fmt.Errorf("%w: a string is not whole", errLine)
	}
	if len(inner)%4 != 0 {
		return nil, errLine
	}
	data := make([]byte, len(inner)/4)
	for i := range data {
		piece := inner[4*i:]
		high, low := hexDigit(piece[2]), hexDigit(piece[3])
		if piece[0] != '\\' || piece[1] != 'x' || high > 15 || low > 15 {
			return nil, errLine
		}
		data[i] = high<<4 | low
	}
	return data, nil
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// texts returns the bytes of all strings in an argument, one after the other: [{iov_base="\x61", iov_len=1}, ...].
func texts(arg string) ([]byte, error) {
	var all []byte
	for {
		start := strings.IndexByte(arg, '"')
		if start < 0 {
			return all, nil
		}
		length := strings.IndexByte(arg[start+1:], '"')
		if length < 0 {
			return nil, errLine
		}
		end := start + 1 + length + 1
		data, err := text(arg[start:end])
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(arg[end:], "...") {
			return nil, fmt.Errorf("%w: a string is not whole", errLine)
		}
		all, arg = append(all, data...), arg[end:]
	}
}
