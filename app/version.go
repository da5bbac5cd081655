package app

import (
	"cmp"
	"runtime"
	"runtime/debug"

	"github.com/opencapture/capture/modules/module"
)

// version is set by the linker: -ldflags "-X github.com/opencapture/capture/app.version=v1.2.3". Without it, the
// version that the Go toolchain has recorded is shown.
var version string

// thisBuild describes the build that the process runs.
func thisBuild() module.Build {
	info, _ := debug.ReadBuildInfo()
	return describe(version, info)
}

// describe returns what the toolchain has recorded about a build, as far as it is known.
func describe(version string, info *debug.BuildInfo) module.Build {
	if info == nil {
		info = &debug.BuildInfo{GoVersion: runtime.Version(), Main: debug.Module{Version: "(unknown)"}}
	}
	build := module.Build{Version: cmp.Or(version, info.Main.Version), GoVersion: info.GoVersion}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			build.Commit = setting.Value
		case "vcs.modified":
			build.Modified = setting.Value == "true"
		}
	}
	return build
}
