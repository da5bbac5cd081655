package app

import (
	"io"
	"os"
	"runtime/debug"

	"github.com/opencapture/capture/modules/module"
)

// Run executes a command line as Main does, in a process that the test makes up, and returns the exit code.
func Run(args, environ []string, out, err io.Writer, signals <-chan os.Signal, modules ...module.Module) int {
	p := process{modules: modules, environ: environ, out: out, err: err, signals: signals, detach: func() {}}
	return p.run(args)
}

// Describe returns the text that names a build.
func Describe(version string, info *debug.BuildInfo) string { return describe(version, info).String() }
