package standard_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/app/standard"
)

// commands are all commands of the stock build, each one before the commands below it.
func commands() []*cobra.Command {
	var all []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		all = append(all, c)
		for _, below := range c.Commands() {
			walk(below)
		}
	}
	walk(app.CommandLine(standard.Modules()))
	return all
}

func TestTheHelpOfEveryCommandIsComplete(t *testing.T) {
	for _, c := range commands() {
		path := c.CommandPath()
		require.NotEmpty(t, c.Short, path)
		require.NotContains(t, c.Short, "\n", path)
		require.NotRegexp(t, `\.$`, c.Short, path)
		require.False(t, c.Hidden, path)
		require.NotEmpty(t, c.Example, path)
		for _, line := range strings.Split(c.UsageString()+c.Long+"\n"+c.Example, "\n") {
			require.LessOrEqual(t, len(line), 160, "%s: %s", path, line)
		}
		c.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			_, usage := pflag.UnquoteUsage(flag)
			require.NotEmpty(t, usage, "%s --%s", path, flag.Name)
		})
	}
}

// The examples of every command are valid command lines.
func TestTheExamplesOfEveryCommandAreOnesOfIt(t *testing.T) {
	root := app.CommandLine(standard.Modules())
	for _, c := range commands() {
		own := false
		for line := range strings.Lines(c.Example) {
			require.True(t, strings.HasPrefix(line, "  "), "%s: %s", c.CommandPath(), line)
			_, typed, found := strings.Cut(line, "capture ")
			if !found || strings.Contains(line, "kubectl") { // the pod is called capture
				continue
			}
			if end := strings.IndexAny(typed, "|>#)\n"); end >= 0 {
				typed = typed[:end]
			}
			target, rest, err := root.Find(strings.Fields(typed))
			require.NoError(t, err, line)
			own = own || strings.HasPrefix(target.CommandPath(), c.CommandPath())
			target.InitDefaultHelpFlag()
			require.NoError(t, target.ParseFlags(rest), line)
			require.NoError(t, target.Args(target, target.Flags().Args()), line)
		}
		require.True(t, own || c.Name() == "capture", "%s: no example uses it: %s", c.CommandPath(), c.Example)
	}
}

// list returns the table of all commands in the form that docs/commands.md has.
func list() string {
	var out strings.Builder
	out.WriteString("| command | flags | does |\n|---|---|---|\n")
	for _, c := range commands() {
		var flags []string
		c.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			if flag.Name != "help" {
				flags = append(flags, "`--"+flag.Name+"`")
			}
		})
		usage := strings.TrimSpace(strings.TrimSuffix(c.UseLine(), "[flags]"))
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", usage, strings.Join(flags, " "), c.Short)
	}
	return out.String()
}

func TestTheDocumentedCommandsAreThoseOfTheBuild(t *testing.T) {
	text, err := os.ReadFile("../../docs/commands.md")
	require.NoError(t, err)
	require.Contains(t, string(text), "\n\n"+list()+"\n", "docs/commands.md is to have this list of commands:\n%s",
		list())
}

// The image has no shell, so its health check is a command of the binary.
func TestTheHealthCheckOfTheImageIsACommandOfTheBuild(t *testing.T) {
	text, err := os.ReadFile("../../Dockerfile")
	require.NoError(t, err)
	_, check, found := strings.Cut(string(text), "\nHEALTHCHECK ")
	require.True(t, found)
	line, _, _ := strings.Cut(check, "\n")
	var command []string
	require.NoError(t, json.Unmarshal([]byte(line[strings.IndexByte(line, '['):]), &command))
	require.Contains(t, string(text), "\nENTRYPOINT [\""+command[0]+"\"]")
	c, rest, err := app.CommandLine(standard.Modules()).Find(command[1:])
	require.NoError(t, err)
	require.Equal(t, "capture healthcheck", c.CommandPath())
	require.Empty(t, rest)
}
