package app

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencapture/capture/app/posthogenv"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

// version is set by the linker: -ldflags "-X github.com/opencapture/capture/app.version=v1.2.3". Without it, the version
// that the Go toolchain recorded is shown.
var version string

// command makes the command line of the build.
func (p *process) command() *cobra.Command {
	source := configs.Source{Environ: p.environ}
	serve := func(*cobra.Command, []string) error { return p.serve(source) }

	root := &cobra.Command{
		Use:   "capture",
		Short: "Receives product-analytics events over HTTP and writes them to Kafka",
		Long: `Receives product-analytics events over HTTP, as PostHog SDKs send them, and writes them to Kafka.

Without a subcommand it serves. Configuration comes from the files given with --config, then from environment variables
named CAPTURE_<SECTION>__<KEY>; "capture config reference" lists every key.`,
		Args:          cobra.NoArgs,
		RunE:          serve,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringArrayVar(&source.Files, "config", nil, "YAML `FILE` to read; may be repeated, later files win")
	root.AddCommand(
		&cobra.Command{Use: "serve", Short: "Run the service (the default)", Args: cobra.NoArgs, RunE: serve},
		p.configCommand(&source),
		p.graphCommand(&source),
		p.versionCommand(),
	)
	for i, m := range p.modules {
		for _, command := range m.Commands {
			root.AddCommand(p.moduleCommand(i, command, &source))
		}
	}
	return root
}

func (p *process) configCommand(source *configs.Source) *cobra.Command {
	config := &cobra.Command{Use: "config", Short: "Check and show the configuration", Args: cobra.NoArgs}
	config.RunE = func(*cobra.Command, []string) error { return config.Help() }
	config.AddCommand(
		&cobra.Command{
			Use: "validate", Short: "Report everything that is wrong, a line each", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				if _, err := Load(p.modules, *source); err != nil {
					return err
				}
				_, err := fmt.Fprintln(p.out, "configuration is valid")
				return err
			},
		},
		&cobra.Command{
			Use: "print", Short: "Show every value in effect and where it comes from, secrets masked", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				set, err := Load(p.modules, *source)
				if err != nil {
					return err
				}
				text, err := set.YAML()
				return p.print(append(gracePeriod(set), text...), err)
			},
		},
		&cobra.Command{
			Use: "reference", Short: "Show every key with its default and documentation", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return p.print(Reference(p.modules)) },
		},
		p.fromPostHogEnvCommand(),
	)
	return config
}

// spareStop is how long a process may take to end beside what its modules take to stop.
const spareStop = 5 * time.Second

// gracePeriod is a comment that says how long an orchestrator has to wait for the service to stop.
func gracePeriod(set *configs.Set) []byte {
	stop := set.Section(section).(Config).StopTimeout
	return fmt.Appendf(nil, "# terminationGracePeriodSeconds: %d\n# That is app.stop_timeout (%s) and %s to spare.\n\n",
		int(math.Ceil((stop + spareStop).Seconds())), stop, spareStop)
}

func (p *process) fromPostHogEnvCommand() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use: "from-posthog-env", Short: "Translate the environment of PostHog's capture service into a configuration file", Args: cobra.NoArgs,
		Long: `Translates the environment of PostHog's own capture service, variables such as CAPTURE_MODE and KAFKA_HOSTS, into a
configuration file for this one, and says what has no counterpart. It reads the environment that it runs in, or a file:

  kubectl exec deploy/capture -- env > posthog.env
  capture config from-posthog-env --env-file posthog.env > mine.yaml
  capture config validate --config mine.yaml`,
		RunE: func(*cobra.Command, []string) error {
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
			return p.print(FromPostHogEnv(p.modules, environ))
		},
	}
	command.Flags().StringVar(&file, "env-file", "", "`FILE` to read instead of the environment: an .env file, or what \"env\" prints")
	return command
}

// FromPostHogEnv writes the configuration of a build of these modules that an environment of PostHog's capture service, in the
// form of os.Environ, amounts to.
func FromPostHogEnv(modules []module.Module, environ []string) ([]byte, error) {
	keys, err := configs.Keys(sections(modules))
	if err != nil {
		return nil, err
	}
	return posthogenv.Translate(environ, keys)
}

// Reference writes the configuration reference of a build of these modules: theirs and the app's own section.
func Reference(modules []module.Module) ([]byte, error) { return configs.Reference(sections(modules)) }

func (p *process) graphCommand(source *configs.Source) *cobra.Command {
	return &cobra.Command{
		Use: "graph", Short: "Show how the parts of this build depend on each other, for Graphviz (dot)", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dot, err := p.dot(*source)
			return p.print([]byte(dot), err)
		},
	}
}

func (p *process) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this build", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info, _ := debug.ReadBuildInfo()
			_, err := fmt.Fprintln(p.out, describe(version, info))
			return err
		},
	}
}

// moduleCommand puts a command of the i-th module on the command line.
func (p *process) moduleCommand(i int, command module.Command, source *configs.Source) *cobra.Command {
	c := &cobra.Command{
		Use: command.Name, Short: command.Short, Long: command.Long,
		RunE: func(c *cobra.Command, args []string) error {
			return p.invoke(i, command, *source, args, c.Flags())
		},
	}
	if command.Flags != nil {
		command.Flags(c.Flags())
	}
	return c
}

func (p *process) print(text []byte, err error) error {
	if err != nil {
		return err
	}
	_, err = p.out.Write(text)
	return err
}

// describe names a build: its version, and the commit and Go version as far as they are known.
func describe(version string, info *debug.BuildInfo) string {
	if info == nil {
		info = &debug.BuildInfo{GoVersion: runtime.Version(), Main: debug.Module{Version: "(unknown)"}}
	}
	if version == "" {
		version = info.Main.Version
	}
	text := "capture " + version
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	if commit := settings["vcs.revision"]; commit != "" {
		text += " commit " + commit
		if settings["vcs.modified"] == "true" {
			text += " (modified)"
		}
	}
	return text + " " + info.GoVersion
}
