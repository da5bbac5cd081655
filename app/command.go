package app

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencapture/capture/app/posthogenv"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

// root makes the command line of the build.
func (p *process) root() *cobra.Command {
	var source configs.Source
	serve := func(module.Invocation) error { return p.serve(p.read(source)) }
	root := p.newCommand(module.Command{
		Use:   "capture",
		Short: "Receives product-analytics events over HTTP and writes them to Kafka",
		Long: `Receives product-analytics events over HTTP, as PostHog SDKs send them, and writes them to Kafka.

Without a subcommand it serves. Configuration comes from the files given with --config, then from environment variables
named CAPTURE_<SECTION>__<KEY>; "capture config reference" lists every key.

What a command finds goes to standard output. Hints, progress and errors go to standard error. The exit code is 0 for
success and for a stop by SIGINT or SIGTERM, 1 when something failed, faults of the configuration among it, 2 when the
command line is wrong, so that nothing was done, and 128 plus the signal's number when a second signal cut a stop
short.`,
		Example: `  capture                              # serve, with the broker inside
  capture --config production.yaml     # serve, with what a file says
  capture help spool                   # say more about a command`,
		Run: serve,
	}, direct)
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.Version = strings.TrimPrefix(thisBuild().String(), "capture version ")
	root.InitDefaultVersionFlag()
	root.SetFlagErrorFunc(wrongFlag)
	root.SetOut(p.out)
	root.SetErr(p.err)
	writeHelp := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, args []string) {
		var text bytes.Buffer
		c.SetOut(&text)
		writeHelp(c, args)
		c.SetOut(p.out)
		_, p.unsaid = p.out.Write(text.Bytes()) // cobra leaves such an error out
	})
	root.PersistentFlags().StringArrayVar(&source.Files, "config", nil,
		"YAML `FILE` to read; may be repeated, later files win")
	if err := root.MarkPersistentFlagFilename("config", "yaml", "yml"); err != nil {
		panic(err) // the line above has made the flag
	}
	root.AddCommand(
		p.newCommand(module.Command{
			Use: "serve", Short: "Run the service (the default)",
			Example: "  capture serve --config configs/dev.yaml",
			Run:     serve,
		}, direct),
		p.newCommand(p.configCommand(&source), direct),
		p.newCommand(p.graphCommand(&source), direct),
		p.newCommand(versionCommand(), direct),
		p.newCompletion(root),
	)
	root.CompletionOptions.DisableDefaultCmd = true // newCompletion, on the line above, takes its place
	help := p.newHelp(root)
	root.SetHelpCommand(help)
	root.AddCommand(help)
	for i, m := range p.modules {
		for _, command := range m.Commands {
			root.AddCommand(p.newCommand(command, func(f any, use module.Invocation) error {
				return p.invoke(i, p.read(source), command.DespiteFaults, f, use)
			}))
		}
	}
	return root
}

// read returns the source of the configuration. It is called once the flags have been read.
func (p *process) read(source configs.Source) configs.Source {
	source.Environ = p.environ
	return source
}

func (p *process) configCommand(source *configs.Source) module.Command {
	return module.Command{
		Use: "config", Short: "Check and show the configuration",
		Example: "  capture config validate --config mine.yaml",
		Commands: []module.Command{
			{
				Use: "validate", Short: "Report everything that is wrong, a line each",
				Long: `Reports everything that is wrong with the configuration, a line each, and starts nothing. It
also looks at what the configuration needs of this machine: files that can be read, directories that can be written to,
and addresses to listen on. So run it where the service runs, as its user. It opens no connections. The exit code is 1
if anything is wrong. With --output json there is an object for each fault,
{"key":"...","message":"..."}, and none if all is well.`,
				Example: "  capture config validate --config configs/production.yaml --config mine.yaml",
				Output:  module.Table,
				Run:     func(use module.Invocation) error { return p.validate(use, p.read(*source)) },
			},
			{
				Use: "print", Short: "Show every value in effect and where it comes from, secrets masked",
				Long: `Shows every value in effect and where it comes from, secrets masked. If the configuration has
faults, the lines that begin with "# FAULT" say so where they are, a value that cannot be read is shown as its default,
and the exit code is 1.`,
				Example: "  CAPTURE_DELIVERY__ACK=spool capture config print",
				Run: func(module.Invocation) error {
					set, fault := inspect(p.modules, p.read(*source))
					if set == nil {
						return fault
					}
					text, err := set.YAML()
					return errors.Join(p.print(append(gracePeriod(set), text...), err), fault)
				},
			},
			{
				Use: "reference", Short: "Show every key with its default and documentation",
				Example: "  capture config reference > reference.yaml",
				Run:     func(module.Invocation) error { return p.print(Reference(p.modules)) },
			},
			p.fromPostHogEnvCommand(),
		},
	}
}

func (p *process) validate(use module.Invocation, source configs.Source) error {
	_, err := inspect(p.modules, source, probes(p.modules)...)
	if found := posthogenv.Found(source.Environ); found != "" {
		use.Hint("%s", found)
	}
	var faults *configs.FaultsError
	if use.Output == module.JSON {
		if !errors.As(err, &faults) {
			return err
		}
		list := use.List()
		for _, fault := range faults.Faults {
			if err := list.Add(struct {
				Key     string `json:"key"`
				Message string `json:"message"`
			}(fault)); err != nil {
				return err
			}
		}
		return &exitError{code: exitFailed}
	}
	if err != nil {
		return err
	}
	if err := p.print([]byte("configuration is valid\n"), nil); err != nil {
		return err
	}
	command := "capture"
	for _, file := range source.Files {
		command += " --config " + file
	}
	use.Hint("next: %s", command)
	return nil
}

// spareStop is the time that a process may take to end on top of the time that its modules take to stop.
const spareStop = 5 * time.Second

// gracePeriod is a comment that says how long an orchestrator has to wait for the service to stop.
func gracePeriod(set *configs.Set) []byte {
	stop := set.Section(section).(Config).StopTimeout
	return fmt.Appendf(nil, "# terminationGracePeriodSeconds: %d\n# That is app.stop_timeout (%s) and %s to spare.\n\n",
		int(math.Ceil((stop + spareStop).Seconds())), stop, spareStop)
}

func (p *process) fromPostHogEnvCommand() module.Command {
	var file string
	return module.Command{
		Use:   "from-posthog-env",
		Short: "Translate the environment of PostHog's capture service into a configuration file",
		Long: `Translates the environment of PostHog's own capture service, variables such as CAPTURE_MODE and
KAFKA_HOSTS, into a configuration file for this one, and lists the variables that have no counterpart. It reads the
environment that it runs in, or a file.`,
		Example: `  kubectl exec deploy/capture -- env > posthog.env
  capture config from-posthog-env --env-file posthog.env > mine.yaml
  capture config validate --config mine.yaml`,
		Flags: func(flags *module.Flags) {
			flags.StringVar(&file, "env-file", "",
				"`FILE` to read instead of the environment: an .env file, or what \"env\" prints")
		},
		Run: func(use module.Invocation) error {
			environ := p.environ
			if file != "" {
				text, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				if environ, err = posthogenv.ParseFile(string(text)); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
			}
			if err := p.print(FromPostHogEnv(p.modules, environ)); err != nil {
				return err
			}
			use.Hint("next: write this to a file, read its comments, and check it with capture config validate " +
				"--config FILE")
			return nil
		},
	}
}

// FromPostHogEnv translates an environment of PostHog's capture service, in the form of os.Environ, into a
// configuration file for a build of these modules.
func FromPostHogEnv(modules []module.Module, environ []string) ([]byte, error) {
	keys, err := configs.Keys(sections(modules))
	if err != nil {
		return nil, err
	}
	return posthogenv.Translate(environ, keys)
}

// Reference writes the configuration reference of a build of these modules: their sections and the app's own.
func Reference(modules []module.Module) ([]byte, error) { return configs.Reference(sections(modules)) }

func (p *process) graphCommand(source *configs.Source) module.Command {
	return module.Command{
		Use: "graph", Short: "Show how the parts of this build depend on each other, for Graphviz (dot)",
		Example: "  capture graph | dot -Tsvg > graph.svg",
		Run: func(module.Invocation) error {
			dot, err := p.dot(p.read(*source))
			return p.print([]byte(dot), err)
		},
	}
}

func versionCommand() module.Command {
	return module.Command{
		Use: "version", Short: "Show the version of this build",
		Example: "  capture version --output json",
		Output:  module.Table,
		Run: func(use module.Invocation) error {
			build := thisBuild()
			if use.Output == module.JSON {
				return use.List().Add(build)
			}
			_, err := fmt.Fprintln(use.Out, build)
			return err
		},
	}
}

func (p *process) print(text []byte, err error) error {
	if err != nil {
		return err
	}
	_, err = p.out.Write(text)
	return err
}
