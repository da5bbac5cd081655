package standard_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/app/standard"
	"github.com/opencapture/capture/configs"
)

// files is where the reference and the overlays are.
const files = "../../configs"

const regenerate = "configs/reference.yaml is not what the modules say. Regenerate it: go run . config reference > configs/reference.yaml"

func TestReferenceFileIsTrue(t *testing.T) {
	want, err := app.Reference(standard.Modules())
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(files, "reference.yaml"))
	require.NoError(t, err, regenerate)
	require.Equal(t, string(want), string(got), regenerate)
}

func TestReferenceFileLoadsAsTheDefaults(t *testing.T) {
	set, err := app.Load(standard.Modules(), configs.Source{Files: []string{filepath.Join(files, "reference.yaml")}})
	require.NoError(t, err)
	for _, module := range standard.Modules() {
		require.Equal(t, module.Config, set.Section(module.Name), module.Name)
	}
}

func TestOverlaysLoadAloneAndTogether(t *testing.T) {
	dev, production, posthog := filepath.Join(files, "dev.yaml"), filepath.Join(files, "production.yaml"), filepath.Join(files, "posthog.yaml")
	for _, overlays := range [][]string{{dev}, {production}, {posthog}, {dev, posthog}, {production, posthog}} {
		_, err := app.Load(standard.Modules(), configs.Source{Files: overlays})
		require.NoError(t, err, overlays)
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	text, err := app.Reference(standard.Modules())
	require.NoError(t, err)
	var reference yaml.Node
	require.NoError(t, yaml.Unmarshal(text, &reference))
	var walk func(node *yaml.Node, path string)
	walk = func(node *yaml.Node, path string) {
		for i := 0; i+1 < len(node.Content); i += 2 {
			name, value := node.Content[i], node.Content[i+1]
			if value.Kind == yaml.MappingNode {
				walk(value, path+name.Value+".")
				continue
			}
			require.NotEmpty(t, name.HeadComment, "%s%s has no doc tag", path, name.Value)
		}
	}
	walk(reference.Content[0], "")
}
