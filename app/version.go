package app

import (
	"runtime"
	"runtime/debug"

	"github.com/opencapture/capture/modules/module"
)

// thisBuild is the build that the process runs, as "capture version" names it.
func thisBuild() module.Build {
	info, _ := debug.ReadBuildInfo()
	return identify(version, info)
}

// identify reads what describe reads, into fields.
func identify(version string, info *debug.BuildInfo) module.Build {
	if info == nil {
		info = &debug.BuildInfo{GoVersion: runtime.Version(), Main: debug.Module{Version: "(unknown)"}}
	}
	build := module.Build{Version: version, GoVersion: info.GoVersion}
	if version == "" {
		build.Version = info.Main.Version
	}
	modified := ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			build.Revision = setting.Value
		case setting.Key == "vcs.modified" && setting.Value == "true":
			modified = "-modified"
		}
	}
	if build.Revision != "" {
		build.Revision += modified
	}
	return build
}
