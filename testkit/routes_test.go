package testkit_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/app/standard"
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit"
	"github.com/opencapture/capture/transport"
	"github.com/opencapture/capture/transport/route"
)

// alone lists the routes of the stock build.
const alone = `
ai POST /i/v0/ai
ai GET,POST /i/v0/ai/batch
ai POST /i/v0/ai/otel
ai POST /i/v0/ai/otel/v1/logs
ai POST /i/v0/ai/otel/v1/traces
ai POST /i/v1/ai/events
analytics GET,POST /batch
analytics GET,POST /capture
analytics GET,POST /e
analytics GET,POST /engage
analytics GET,POST /i/v0/e
analytics POST /i/v1/analytics/events
analytics GET,POST /test/black_hole
analytics GET,POST /track
logs POST /i/v1/logs
recordings GET,POST /s
reports POST /report
setup GET,HEAD /api/early_access_features
setup GET,HEAD /api/feature_flag/local_evaluation
setup GET,HEAD /api/product_tours
setup GET,HEAD /api/projects/:project/feature_flags/:flag/remote_config
setup GET,HEAD /api/surveys
setup GET,HEAD /api/web_experiments
setup GET,HEAD /array/:token/config
setup GET,HEAD /array/:token/config.js
setup GET,HEAD,POST /decide
setup GET,HEAD,POST /flags
setup GET,HEAD /flags/definitions
`

// passing lists the routes of set-up calls when transport.upstream is set.
const passing = `
setup GET,HEAD,POST /*
`

// served holds the routes of the modules of a graph.
type served struct {
	fx.In

	Routes []route.Route `group:"routes"`
}

// lines returns the routes of the group, or all routes, in the order of their groups and paths.
func (s served) lines(group route.Group) []string {
	var list []route.Route
	for _, r := range s.Routes {
		if group == "" || r.Group == group {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b route.Route) int {
		return strings.Compare(string(a.Group)+" "+a.Path, string(b.Group)+" "+b.Path)
	})
	lines := make([]string, len(list))
	for i, r := range list {
		lines[i] = fmt.Sprintf("%s %s %s", r.Group, strings.Join(r.Methods, ","), r.Path)
	}
	return lines
}

// A new path must be added to the list above, with the group that decides which installations serve it.
func TestEveryRouteHasItsGroup(t *testing.T) {
	var graph served
	testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()), testkit.Populate(&graph))
	require.Equal(t, strings.TrimSpace(alone), strings.Join(graph.lines(""), "\n"))

	testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()), testkit.Populate(&graph),
		testkit.Set("transport.upstream", "http://127.0.0.1:1"))
	require.Equal(t, strings.TrimSpace(passing), strings.Join(graph.lines(route.Setup), "\n"))
}

// An installation with the overlay of a mode answers the paths of the mode's groups and no others. An installation
// without an overlay answers all paths.
func TestAnOverlayServesJustItsPaths(t *testing.T) {
	for overlay, groups := range map[string][]route.Group{
		"":           {route.Analytics, route.Recordings, route.AI, route.Logs, route.Reports, route.Setup},
		"events":     {route.Analytics},
		"recordings": {route.Recordings},
		"ai":         {route.AI},
		"import":     {route.Analytics},
	} {
		t.Run("overlay "+overlay, func(t *testing.T) {
			var source configs.Source
			if overlay != "" {
				source.Files = []string{"../configs/" + overlay + ".yaml"}
			}
			set, err := app.Load(standard.Modules(), source)
			require.NoError(t, err)
			serve := strings.Join(set.Section("transport").(transport.Config).Serve, ",")

			var graph served
			service := testkit.Start(t, testkit.Override[events.Sink](testkit.NewSink()), testkit.Populate(&graph),
				testkit.Set("transport.serve", serve))
			for _, r := range graph.Routes {
				status := 404
				if slices.Contains(groups, r.Group) {
					status = 200
				}
				path := strings.Replace(r.Path, ":token", "phc_test", 1)
				require.Equal(t, status, service.Request("OPTIONS", path, "").Status, path)
				require.Equal(t, status, service.Request("OPTIONS", path+"/", "").Status, path+"/")
				for _, method := range []string{"GET", "POST"} {
					got := service.Request(method, path, "").Status
					require.Equal(t, status == 404, got == 404, "%s %s: %d", method, path, got)
				}
			}
			for _, path := range []string{"/", "/_liveness", "/_readiness"} {
				require.Equal(t, 200, service.Request("GET", path, "").Status, path)
			}
			for _, path := range []string{"/static/array.js", "/metrics", "/i/v1/metrics",
				"/i/v0/ai/otel/v1/metrics", "/api/users"} {
				require.Equal(t, 404, service.Request("GET", path, "").Status, path)
			}
		})
	}
}
