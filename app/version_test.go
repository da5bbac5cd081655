package app

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

func TestTheGraphKnowsTheBuildThatTheVersionCommandNames(t *testing.T) {
	var build module.Build
	_, err := Build([]module.Module{{Name: "front", Options: fx.Provide(
		zap.NewNop,
		func() tally.Scope { return tally.NoopScope },
		func(found module.Build) module.Root { build = found; return rootOnly{} },
	)}}, configs.Source{})
	require.NoError(t, err)
	info, _ := debug.ReadBuildInfo()
	require.Equal(t, describe(version, info), build)
	require.NotEmpty(t, build.GoVersion)
}

type rootOnly struct{}

func (rootOnly) Root() {}

func TestABuildIsDescribedByWhatTheToolchainHasRecorded(t *testing.T) {
	commit := debug.BuildSetting{Key: "vcs.revision", Value: "abcdef"}
	modified := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	for _, test := range []struct {
		version   string
		settings  []debug.BuildSetting
		want      module.Build
		described string
	}{
		{"", nil, module.Build{Version: "(devel)", GoVersion: "go1.26.0"}, "capture version (devel) go1.26.0"},
		{"v1.2.3", nil, module.Build{Version: "v1.2.3", GoVersion: "go1.26.0"}, "capture version v1.2.3 go1.26.0"},
		{
			"v1.2.3", []debug.BuildSetting{commit},
			module.Build{Version: "v1.2.3", Commit: "abcdef", GoVersion: "go1.26.0"},
			"capture version v1.2.3 commit abcdef go1.26.0",
		},
		{
			"v1.2.3", []debug.BuildSetting{modified, commit},
			module.Build{Version: "v1.2.3", Commit: "abcdef", Modified: true, GoVersion: "go1.26.0"},
			"capture version v1.2.3 commit abcdef (modified) go1.26.0",
		},
		{"v1.2.3", []debug.BuildSetting{modified},
			module.Build{Version: "v1.2.3", Modified: true, GoVersion: "go1.26.0"}, "capture version v1.2.3 go1.26.0"},
	} {
		info := &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Version: "(devel)"}, Settings: test.settings}
		require.Equal(t, test.want, describe(test.version, info))
		require.Equal(t, test.described, describe(test.version, info).String())
	}
	require.Equal(t, "(unknown)", describe("", nil).Version)
}
