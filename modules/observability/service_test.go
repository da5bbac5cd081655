package observability

import (
	"errors"
	"runtime"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/panics"
)

type liveSection struct {
	Size int `key:"size" live:"true" doc:"A size."`
}

func TestTheServiceSaysWhichBuildItIsWhatItCaughtAndWhatIsInForce(t *testing.T) {
	size, failing := "1", error(nil)
	load := func() (*configs.Set, error) {
		if failing != nil {
			return nil, failing
		}
		return configs.Load([]configs.Section{{Name: "shelf", Defaults: liveSection{}}},
			configs.Source{Environ: []string{"CAPTURE_SHELF__SIZE=" + size}})
	}
	set, err := load()
	require.NoError(t, err)
	live := configs.NewLive(set, load)
	began := live.Status().Since
	build := module.Build{Version: "v1.2.3", Commit: "abc", GoVersion: "go1.26.0"}
	gatherer, err := NewGatherer(NewRegistry(), zap.NewNop(), NewServiceCollectors(build, live)...)
	require.NoError(t, err)
	metric := func(name string) *dto.Metric { return gather(t, gatherer)["capture_"+name].GetMetric()[0] }
	gauge := func(name string) float64 { return metric(name).GetGauge().GetValue() }
	seconds := func(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }

	labels := map[string]string{}
	for _, label := range metric("build_info").GetLabel() {
		labels[label.GetName()] = label.GetValue()
	}
	require.Equal(t, map[string]string{"version": "v1.2.3", "revision": "abc", "goversion": "go1.26.0"}, labels)
	require.Equal(t, 1.0, gauge("build_info"))

	before := metric("panics_total").GetCounter().GetValue()
	require.ErrorContains(t, panics.Catch(func() error { panic("boom") }), "boom")
	require.Equal(t, before+1, metric("panics_total").GetCounter().GetValue())

	require.Equal(t, 1.0, gauge("config_number"))
	require.Equal(t, 1.0, gauge("config_last_reload_successful"))
	require.Equal(t, seconds(began), gauge("config_last_reload_success_timestamp_seconds"))

	size = "2"
	changed, err := live.Reload()
	require.NoError(t, err)
	require.Equal(t, 2.0, gauge("config_number"))
	require.Equal(t, seconds(changed.Loaded), gauge("config_last_reload_success_timestamp_seconds"))

	for now := time.Now(); time.Now().UnixMilli() == now.UnixMilli(); { // the metric has milliseconds
		runtime.Gosched()
	}
	failing = errors.New("the file is not readable")
	_, err = live.Reload()
	require.Error(t, err)
	require.Equal(t, 2.0, gauge("config_number"))
	require.Equal(t, 0.0, gauge("config_last_reload_successful"))
	require.Equal(t, seconds(changed.Loaded), gauge("config_last_reload_success_timestamp_seconds"),
		"a refused one does not count")

	failing = nil
	same, err := live.Reload()
	require.NoError(t, err)
	require.Equal(t, 1.0, gauge("config_last_reload_successful"))
	require.Equal(t, seconds(same.Loaded), gauge("config_last_reload_success_timestamp_seconds"),
		"one that changes nothing does")
}
