package admin

import (
	"time"

	"github.com/opencapture/capture/configs"
)

// Config is the section "admin".
type Config struct {
	Listen       string        `key:"listen" doc:"Where operators reach metrics, health and profiles, as host:port; port 0 takes a free one. There is no authentication: keep it on loopback or in a network of its own."`
	ReadTimeout  time.Duration `key:"read_timeout" doc:"The longest that reading a request may take."`
	WriteTimeout time.Duration `key:"write_timeout" doc:"The longest that writing an answer may take; the time that a profile runs before is not part of it."`
	IdleTimeout  time.Duration `key:"idle_timeout" doc:"How long a connection may wait for its next request."`
	StopTimeout  time.Duration `key:"stop_timeout" doc:"How long a stop waits for requests that are still running, such as a profile."`
}

// DefaultConfig returns the defaults of the section.
func DefaultConfig() Config {
	return Config{
		Listen:       "127.0.0.1:8001",
		ReadTimeout:  10 * time.Second,
		WriteTimeout: 30 * time.Second,
		IdleTimeout:  time.Minute,
		StopTimeout:  2 * time.Second,
	}
}

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.CheckAddress("listen", c.Listen)
	positive := func(key string, timeout time.Duration) {
		faults.Check(timeout > 0, key, "must be positive, got %s", timeout)
	}
	positive("read_timeout", c.ReadTimeout)
	positive("write_timeout", c.WriteTimeout)
	positive("idle_timeout", c.IdleTimeout)
	positive("stop_timeout", c.StopTimeout)
	return faults.Err()
}

// StopBudget is the longest that stopping takes.
func (c Config) StopBudget() time.Duration { return c.StopTimeout }

// Listens is where operators reach the service.
func (c Config) Listens(*configs.Set) map[string]string { return map[string]string{"listen": c.Listen} }
