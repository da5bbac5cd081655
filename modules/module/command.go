package module

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"
)

// Command is a command that a module adds to the command line, with the commands below it:
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
// The app adds help and completion, and answers a command line that is typed wrongly.
type Command struct {
	// Use is the command's name and then its arguments, as the help shows them. The last argument may stand in brackets
	// if it may be left out, or end in "..." if it may be repeated. The command line checks the number of arguments.
	Use string

	// Short says in one line what the command does. Long is the full description. Example holds command lines, each
	// indented by two spaces.
	Short, Long, Example string

	// Flags adds the command's flags, with variables that Run reads. The usage of a flag names the flag's value between
	// backquotes. The shell completes a value that is named FILE with the names of files.
	Flags func(*Flags)

	// Values gives the values of a flag, by the flag's name, or of an argument, by its name in Use. A []string holds
	// all allowed values: the shell offers these, and the command line refuses any other. A function that returns a
	// []string and an error gives the values that the shell offers. Its parameters are filled like those of Run.
	Values map[string]any

	// Output is the default form, Table or JSON, of a command that prints a list. It gives the command the flag
	// --output; see Invocation.List.
	Output string

	// Run is a function that returns an error. Its parameters are filled from the module graph, which is built but not
	// started. A parameter of type Invocation gets what the user typed. A command that has Commands may leave Run out:
	// it then shows its help.
	Run any

	// DespiteFaults says that the command runs, with those below it, also if the configuration has faults. A value that
	// cannot be read is the default then, and Run takes nothing but sections of the configuration. It counts for the
	// commands that a module lists itself.
	DespiteFaults bool

	// Commands are the commands below this one: "capture NAME SUBCOMMAND".
	Commands []Command
}

// Flags are the flags of a command.
type Flags = pflag.FlagSet

// The forms of a list; see Command.Output.
const (
	Table = "table"
	JSON  = "json"
)

// Invocation is one use of a Command. The command writes its result to Out. Err is for messages that only a person
// reads, such as hints and progress. Both escape what a terminal obeys: see modules/terminal.
type Invocation struct {
	// Context ends when the user interrupts the command.
	Context context.Context
	Args    []string
	// Output is the form that the user asked for with --output, Table or JSON. It is empty in a command without that
	// flag.
	Output string
	Out    io.Writer
	Err    io.Writer
	// Terminal says that Err is a terminal.
	Terminal bool
	// Color says that Out is a terminal whose user wants colours.
	Color bool
}

// Hint tells the user in one line what to do next, or what to look at. It ignores an error of Err.
func (use Invocation) Hint(format string, args ...any) {
	_, _ = fmt.Fprintf(use.Err, format+"\n", args...)
}

// MisuseError says that a command was used wrongly. The app adds where the user can read how to use the command, and
// ends the process with the exit code 2. After any other error the exit code is 1.
type MisuseError struct{ Text string }

func (e *MisuseError) Error() string { return e.Text }

// Misusef returns a *MisuseError. It is for a mistake that only Run can find: "--until must be later than --since".
func Misusef(format string, args ...any) error {
	return &MisuseError{Text: fmt.Sprintf(format, args...)}
}
