package app

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

// caller calls a function of a command: its Run or one of its Values.
type caller func(f any, use module.Invocation) error

// direct calls a function that takes an Invocation and no part of the graph. The app's own commands have such
// functions.
func direct(f any, use module.Invocation) error { return f.(func(module.Invocation) error)(use) }

// newCommand makes the command line of a command and of the commands below it.
func (p *process) newCommand(command module.Command, call caller) *cobra.Command {
	b := &branch{process: p, command: command, call: call, arguments: arguments(command.Use)}
	c := &cobra.Command{
		Use: command.Use, Short: command.Short, Long: cmp.Or(command.Long, command.Short+"."), Example: command.Example,
		Args: b.check, RunE: b.run, ValidArgsFunction: b.completeArgument,
	}
	if command.Flags != nil {
		command.Flags(c.Flags())
	}
	if command.Output != "" {
		c.Flags().StringVar(&b.output, "output", command.Output,
			"print a `FORMAT`: table, for people, or json, an object a line")
		b.command.Values = map[string]any{"output": []string{module.Table, module.JSON}}
		for name, values := range command.Values {
			b.command.Values[name] = values
		}
	}
	for name := range command.Values {
		isArgument := slices.ContainsFunc(b.arguments, func(a argument) bool { return a.name == name })
		if !isArgument && c.Flags().Lookup(name) == nil {
			panic(fmt.Sprintf("command %q: Values has %q, which is no flag and no argument of it", command.Use, name))
		}
	}
	c.Flags().VisitAll(func(flag *pflag.Flag) { b.completeFlag(c, flag) })
	for _, below := range command.Commands {
		c.AddCommand(p.newCommand(below, call))
	}
	return c
}

// branch is one command on the command line.
type branch struct {
	process   *process
	command   module.Command
	call      caller
	arguments []argument
	output    string
}

// argument is one of the arguments that the Use of a command names.
type argument struct {
	name               string
	optional, repeated bool
}

func arguments(use string) []argument {
	var list []argument
	for _, word := range strings.Fields(use)[1:] {
		name, repeated := strings.CutSuffix(strings.Trim(word, "[]"), "...")
		list = append(list, argument{name: name, optional: strings.HasPrefix(word, "["), repeated: repeated})
	}
	return list
}

// at returns the argument that may stand at the position, if there is one.
func (b *branch) at(position int) (argument, bool) {
	last := len(b.arguments) - 1
	if last >= 0 && (position <= last || b.arguments[last].repeated) {
		return b.arguments[min(position, last)], true
	}
	return argument{}, false
}

// check returns an error for a wrong argument, for a wrong value of a flag that has a list of values, and for an empty
// value: a shell makes one of a variable that is not set, and a command would do more than its user has asked for.
func (b *branch) check(c *cobra.Command, args []string) error {
	for i, arg := range args {
		argument, expected := b.at(i)
		switch {
		case expected && arg == "":
			return misused(c, fmt.Sprintf("%s: %s is empty", c.CommandPath(), argument.name))
		case expected:
			if err := b.checkValue(c, argument.name, argument.name, arg); err != nil {
				return err
			}
		case c.HasSubCommands():
			return unknownCommand(c, arg)
		case len(b.arguments) == 0:
			return misused(c, fmt.Sprintf("%s takes no arguments, got %q", c.CommandPath(), arg))
		default:
			return misused(c, fmt.Sprintf("%s: %q is an argument too many", c.CommandPath(), arg))
		}
	}
	for _, argument := range b.arguments[min(len(args), len(b.arguments)):] {
		if !argument.optional {
			return misused(c, fmt.Sprintf("%s: %s is missing", c.CommandPath(), argument.name))
		}
	}
	var first error
	c.Flags().Visit(func(flag *pflag.Flag) {
		values := []string{flag.Value.String()}
		if several, ok := flag.Value.(pflag.SliceValue); ok {
			values = several.GetSlice()
		}
		for _, value := range values {
			err := b.checkValue(c, flag.Name, "--"+flag.Name, value)
			if err == nil && value == "" {
				err = misused(c, fmt.Sprintf("%s: --%s is empty", c.CommandPath(), flag.Name))
			}
			if first == nil {
				first = err
			}
		}
	})
	return first
}

// checkValue returns an error for a value that is not in the list of allowed values.
func (b *branch) checkValue(c *cobra.Command, name, shown, value string) error {
	all, listed := b.command.Values[name].([]string)
	if !listed || slices.Contains(all, value) {
		return nil
	}
	return misused(c, fmt.Sprintf("%s: %s must be %s, got %q", c.CommandPath(), shown, strings.Join(all, " or "),
		value))
}

func (b *branch) run(c *cobra.Command, args []string) error {
	if b.command.Run == nil {
		return c.Help()
	}
	err := b.call(b.command.Run, b.use(args))
	var misuse *module.MisuseError
	if errors.As(err, &misuse) {
		return misused(c, c.CommandPath()+": "+err.Error())
	}
	return err
}

func (b *branch) use(args []string) module.Invocation {
	p := b.process
	return module.Invocation{Args: args, Output: b.output, Out: p.out, Err: p.err, Terminal: p.terminal, Color: p.color}
}

func (b *branch) completeArgument(
	_ *cobra.Command, args []string, begun string,
) ([]cobra.Completion, cobra.ShellCompDirective) {
	argument, expected := b.at(len(args))
	if !expected {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return b.values(argument.name, args, begun), cobra.ShellCompDirectiveNoFileComp
}

// completeFlag tells the shell how to complete the value of a flag: from the list of values, with file names, or not at
// all.
func (b *branch) completeFlag(c *cobra.Command, flag *pflag.Flag) {
	if name, _ := pflag.UnquoteUsage(flag); name == "FILE" {
		return // shells complete file names by themselves
	}
	err := c.RegisterFlagCompletionFunc(flag.Name,
		func(_ *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return b.values(flag.Name, args, begun), cobra.ShellCompDirectiveNoFileComp
		})
	if err != nil {
		panic(err) // the command has the flag, and no completion for it yet
	}
}

// values returns the values of a flag or an argument that begin with what the user has typed. An error is not shown:
// the user has only pressed the key that completes a word.
func (b *branch) values(name string, args []string, begun string) []string {
	var all []string
	switch values := b.command.Values[name].(type) {
	case nil:
	case []string:
		all = slices.Clone(values)
	default:
		_ = b.call(catching(values, &all), b.use(args))
	}
	return slices.DeleteFunc(all, func(value string) bool { return !strings.HasPrefix(value, begun) })
}

// catching returns a function that takes the parameters of f and calls f. It puts the first result of f into found and
// returns the second one, which is an error.
func catching(f any, found *[]string) any {
	inner := reflect.ValueOf(f)
	var in []reflect.Type
	for i := range inner.Type().NumIn() {
		in = append(in, inner.Type().In(i))
	}
	outer := reflect.FuncOf(in, []reflect.Type{reflect.TypeFor[error]()}, false)
	return reflect.MakeFunc(outer, func(args []reflect.Value) []reflect.Value {
		results := inner.Call(args)
		*found, _ = results[0].Interface().([]string)
		return results[1:]
	}).Interface()
}

// misused returns the error for a command line that was typed wrongly.
func misused(c *cobra.Command, text string) error {
	return &exitError{code: exitMisused, cause: fmt.Errorf("%s (see %s --help)", text, c.CommandPath())}
}

// unknownCommand returns the error for an unknown name. It suggests the command below c whose name is nearest.
func unknownCommand(c *cobra.Command, name string) error {
	text := fmt.Sprintf("unknown command %q for %q", name, c.CommandPath())
	var known []string
	for _, below := range c.Commands() {
		known = append(known, below.Name())
	}
	return misused(c, text+didYouMean("", name, known))
}

// wrongFlag returns pflag's error and suggests the flag whose name is nearest. If the name of a command is wrong, its
// flags are unknown for that reason.
func wrongFlag(c *cobra.Command, err error) error {
	if words := c.Flags().Args(); c.HasSubCommands() && len(words) > 0 {
		return unknownCommand(c, words[0])
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return misused(c, fmt.Sprintf("%s: %s", c.CommandPath(), err))
	}
	var known []string
	c.Flags().VisitAll(func(flag *pflag.Flag) { known = append(known, flag.Name) })
	return misused(c, fmt.Sprintf("%s: %s%s", c.CommandPath(), err,
		didYouMean("--", unknown.GetSpecifiedName(), known)))
}

func didYouMean(prefix, word string, known []string) string {
	if nearest := configs.Nearest(word, known); nearest != "" {
		return ", did you mean " + prefix + nearest + "?"
	}
	return ""
}

// newHelp makes the command that shows the help of the other commands.
func (p *process) newHelp(root *cobra.Command) *cobra.Command {
	find := func(args []string) (*cobra.Command, error) {
		found, rest, err := root.Find(args)
		if err == nil && len(rest) > 0 {
			err = unknownCommand(found, rest[0])
		}
		return found, err
	}
	return p.newCommand(module.Command{
		Use: "help [COMMAND...]", Short: "Show what a command does and how it is used",
		Example: "  capture help spool move",
		Values: map[string]any{"COMMAND": func(use module.Invocation) (names []string, err error) {
			found, err := find(use.Args)
			if err != nil {
				return nil, err
			}
			for _, below := range found.Commands() {
				names = append(names, cobra.CompletionWithDesc(below.Name(), below.Short))
			}
			return names, nil
		}},
		Run: func(use module.Invocation) error {
			found, err := find(use.Args)
			if err != nil {
				return err
			}
			found.InitDefaultHelpFlag()
			found.InitDefaultVersionFlag()
			return found.Help()
		},
	}, direct)
}

// newCompletion makes the commands that write completion scripts for shells.
func (p *process) newCompletion(root *cobra.Command) *cobra.Command {
	completion := module.Command{
		Use: "completion", Short: "Write a script that completes command lines in a shell",
		Long: `Writes a script that teaches a shell to complete the names of commands and flags, and values where they
are known: topics, formats, files.`,
		Example: `  source <(capture completion bash)
  capture completion zsh > "${fpath[1]}/_capture"
  capture completion fish > ~/.config/fish/completions/capture.fish`,
	}
	for _, shell := range []struct {
		name, example string
		write         func() error
	}{
		{
			"bash",
			"  source <(capture completion bash)                                  # this shell; see bash-completion\n" +
				"  capture completion bash > /etc/bash_completion.d/capture            # all shells from now on",
			func() error { return root.GenBashCompletionV2(p.out, true) },
		},
		{
			"zsh", "  source <(capture completion zsh)                                    # this shell\n" +
				"  capture completion zsh > \"${fpath[1]}/_capture\"                     # all shells from now on",
			func() error { return root.GenZshCompletion(p.out) },
		},
		{
			"fish", "  capture completion fish | source                                    # this shell\n" +
				"  capture completion fish > ~/.config/fish/completions/capture.fish   # all shells from now on",
			func() error { return root.GenFishCompletion(p.out, true) },
		},
		{
			"powershell", "  capture completion powershell | Out-String | Invoke-Expression",
			func() error { return root.GenPowerShellCompletionWithDesc(p.out) },
		},
	} {
		completion.Commands = append(completion.Commands, module.Command{
			Use: shell.name, Short: "Write the completion script for " + shell.name, Example: shell.example,
			Run: func(module.Invocation) error { return shell.write() },
		})
	}
	return p.newCommand(completion, direct)
}

// CommandLine returns the commands of a build of these modules, for documentation and for tests. Main runs them.
func CommandLine(modules []module.Module) *cobra.Command {
	return (&process{modules: modules, out: os.Stdout, err: os.Stderr}).root()
}
