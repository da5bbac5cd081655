package services_test

import (
	"encoding/xml"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/app/standard"
	"github.com/opencapture/capture/configs"
)

// composeFile is the part of docker-compose.yml that the tests look at.
type composeFile struct {
	Services map[string]struct {
		Image       string
		Build       struct{ Context string }
		Environment map[string]string
		Ports       []string
		Volumes     []string
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		Healthcheck struct{ Test []string }
	}
	Volumes map[string]any
}

func compose(t *testing.T) composeFile {
	t.Helper()
	data, err := os.ReadFile("../../docker-compose.yml")
	require.NoError(t, err)
	var file composeFile
	require.NoError(t, yaml.Unmarshal(data, &file))
	return file
}

func TestComposeConfiguresCaptureByKeysThatExist(t *testing.T) {
	var environ []string
	for name, value := range compose(t).Services["capture"].Environment {
		environ = append(environ, name+"="+value)
	}
	require.NotEmpty(t, environ)
	_, err := app.Load(standard.Modules(), configs.Source{Environ: environ})
	require.NoError(t, err)
}

func TestComposeFitsTogether(t *testing.T) {
	file := compose(t)
	for name, service := range file.Services {
		require.NotEqual(t, service.Image == "", service.Build.Context == "", "%s is either pulled or built", name)
		for other, depends := range service.DependsOn {
			require.Contains(t, file.Services, other, "%s depends on it", name)
			require.Equal(t, "service_healthy", depends.Condition)
			require.NotEmpty(t, file.Services[other].Healthcheck.Test, "%s waits until %s is healthy", name, other)
		}
		for _, volume := range service.Volumes {
			volume, _, _ = strings.Cut(volume, ":")
			require.Contains(t, file.Volumes, volume, "%s mounts it", name)
		}
		for _, port := range service.Ports {
			loopback := strings.HasPrefix(port, "127.0.0.1:")
			require.True(t, loopback || port == "8000:8000",
				"%s publishes %s, but only events come from elsewhere", name, port)
		}
	}
	// services.sh starts these two, and waits for their health.
	for _, name := range []string{"kafka", "redis"} {
		require.NotEmpty(t, file.Services[name].Healthcheck.Test, name)
		require.Empty(t, file.Services[name].DependsOn, name)
	}
}

func TestComposeAndPomRunTheSameKafka(t *testing.T) {
	data, err := os.ReadFile("pom.xml")
	require.NoError(t, err)
	var pom struct {
		Dependencies []struct {
			ArtifactID string `xml:"artifactId"`
			Version    string `xml:"version"`
		} `xml:"dependencies>dependency"`
	}
	require.NoError(t, xml.Unmarshal(data, &pom))
	versions := map[string]string{}
	for _, dependency := range pom.Dependencies {
		versions[dependency.ArtifactID] = dependency.Version
	}
	require.Contains(t, versions, "kafka_2.13")
	require.Equal(t, "apache/kafka:"+versions["kafka_2.13"], compose(t).Services["kafka"].Image)
}
