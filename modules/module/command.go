package module

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"
)

// Command is a command that a module contributes to the command line, with the commands below it:
//
//	func greet() module.Command {
//		var loud bool
//		return module.Command{
//			Use:     "greet NAME",
//			Short:   "Greet somebody",
//			Example: "  capture greet Eve --loud",
//			Flags:   func(flags *module.Flags) { flags.BoolVar(&loud, "loud", false, "greet so that all hear it") },
//			Run: func(use module.Invocation, greeter *Greeter) error {
//				return greeter.Greet(use.Out, use.Args[0], loud)
//			},
//		}
//	}
//
// The app makes the rest of it: help, completion, and an answer to what is typed wrongly.
type Command struct {
	// Use is the command's name and then its arguments, as the help shows them. The last one may be in brackets, which
	// may be left out, or end in "...", which may be repeated. The command line checks their number.
	Use string

	// Short says in one line what the command does, Long all that there is to know. Example is command lines, each
	// indented by two spaces.
	Short, Long, Example string

	// Flags adds the command's flags, with variables that Run reads. The value of a flag is called what stands between
	// backquotes in its usage; one that is called FILE is completed with the names of files.
	Flags func(*Flags)

	// Values says which values a flag has, by the flag's name, or an argument, by its name in Use. A []string holds all
	// of them: the command line offers these and refuses any other. A function that returns a []string and an error
	// gives those to offer, and its parameters are filled as those of Run.
	Values map[string]any

	// Output is what a command that lists something prints unless it is told otherwise: Table or JSON. It gives the
	// command the flag --output; see Invocation.List.
	Output string

	// Run is a function whose parameters are filled from the module graph (which is built but not started) and which
	// returns an error; it takes an Invocation for what the user typed. A command with Commands may go
	// without: it shows its help.
	Run any

	// Commands stand below this one: "capture NAME SUBCOMMAND".
	Commands []Command
}

// Flags are the flags of a command.
type Flags = pflag.FlagSet

// The forms of a list: see Command.Output.
const (
	Table = "table"
	JSON  = "json"
)

// Invocation is one use of a Command. What a command finds goes to Out. Err is for what only a person wants to know,
// such as hints and progress.
type Invocation struct {
	// Context ends when the user interrupts the command.
	Context context.Context
	Args    []string
	// Output is what --output says, Table or JSON; empty in a command without it.
	Output string
	Out    io.Writer
	Err    io.Writer
	// Terminal says that Err is a terminal.
	Terminal bool
}

// Hint tells the user in one line what to do next, or what to look at. Nobody is told where Err cannot be written to.
func (use Invocation) Hint(format string, args ...any) {
	_, _ = fmt.Fprintf(use.Err, format+"\n", args...)
}

// MisuseError says that a command was used wrongly. The app adds where to read how it is used, and ends the process
// with the exit code 2; after any other error that is 1.
type MisuseError struct{ Text string }

func (e *MisuseError) Error() string { return e.Text }

// Misusef returns a *MisuseError, for a Run that finds what the command line cannot: "--until must be later than
// --since".
func Misusef(format string, args ...any) error {
	return &MisuseError{Text: fmt.Sprintf(format, args...)}
}
