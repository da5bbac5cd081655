package setup

import (
	"net/url"
	"strings"

	"github.com/opencapture/capture/configs"
)

// Config is the configuration section transport.setup.
type Config struct {
	AnalyticsEndpoint string `key:"analytics_endpoint" live:"true" doc:"Path of this host that browsers are told to send events to."`
	RecordingEndpoint string `key:"recording_endpoint" live:"true" doc:"Path of this host that browsers are told to send session recordings to. Empty: browsers are told not to record. Mobile SDKs have a recorder; a browser loads it from the host, and this service does not serve it: see recorder_bundled."`
	RecorderBundled   bool   `key:"recorder_bundled" live:"true" doc:"Set true if pages include the recorder (posthog-js/dist/recorder, or the full bundle without external dependencies), or if no browser is to record."`

	Autocapture bool `key:"autocapture" live:"true" doc:"Whether browsers are told to send clicks, changes and submissions by themselves."`
	Heatmaps    bool `key:"heatmaps" live:"true" doc:"Whether browsers are told to send the data of heatmaps: where the mouse went and how far the page was scrolled."`
	Exceptions  bool `key:"exceptions" live:"true" doc:"Whether SDKs are told to send unhandled exceptions by themselves. A page may turn on exceptions, web vitals and dead clicks for itself."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{AnalyticsEndpoint: "/i/v0/e/", Autocapture: true, Heatmaps: true}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(isPath(c.AnalyticsEndpoint), "analytics_endpoint",
		"must be a path such as /i/v0/e/, got %q", c.AnalyticsEndpoint)
	faults.Check(c.RecordingEndpoint == "" || isPath(c.RecordingEndpoint), "recording_endpoint",
		"must be a path such as /s/, or empty, got %q", c.RecordingEndpoint)
	faults.Check(c.RecordingEndpoint == "" || c.RecorderBundled, "recording_endpoint",
		"tells browsers to record, and nothing here serves the recorder that they load: say recorder_bundled: true "+
			"if pages bring it along, or set transport.upstream, whose answers then count, and leave this key out")
	return faults.Err()
}

// isPath reports whether the text, put behind a host's name, is a path on that host and nothing more.
func isPath(text string) bool {
	u, err := url.Parse(text)
	return err == nil && strings.HasPrefix(text, "/") && u.Host == "" && u.EscapedPath() == text
}
