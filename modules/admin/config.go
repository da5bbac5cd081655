package admin

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/private"
)

// Config is the section "admin".
type Config struct {
	Listen       string         `key:"listen" doc:"Address of the listener for operators, with metrics, health, profiles and the other endpoints that the index at / lists, as host:port; port 0 takes a free port. Set admin.token before the listener leaves loopback."`
	Token        configs.Secret `key:"token" live:"true" doc:"Token that all endpoints except health and metrics ask for: as Authorization: Bearer, or as the password of basic authentication, with any user name. Without a token, everybody who reaches the listener may read, and requests that change or cost something are answered from loopback only."`
	Hosts        []string       `key:"hosts" live:"true" doc:"Names, without ports, by which clients may reach the listener, beside addresses and localhost. A request for another name is refused, so that a web page cannot reach the listener through the browser of an operator."`
	ReadTimeout  time.Duration  `key:"read_timeout" live:"true" doc:"How long reading a request may take. A changed timeout holds for new connections."`
	WriteTimeout time.Duration  `key:"write_timeout" live:"true" doc:"How long writing an answer may take. The time that a profile runs before does not count."`
	IdleTimeout  time.Duration  `key:"idle_timeout" live:"true" doc:"How long a connection may wait for its next request."`
	StopTimeout  time.Duration  `key:"stop_timeout" live:"true" doc:"How long a stop waits for requests that are still running. A stop ends profiles early."`

	Audit AuditConfig `key:"audit" live:"true"`
}

// AuditConfig is the group "admin.audit".
type AuditConfig struct {
	File string `key:"file" doc:"File that the audit log is appended to: what operators change, two lines of JSON for each change. The directory must exist, and other users must not be able to write to it. A file that is moved away, as logrotate does, is begun anew. While lines cannot be written, changes are refused. Empty: standard error."`
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
	faults.Check(isVisible(c.Token.Reveal()), "token",
		"must be visible ASCII without spaces, as a header has to hold it: look for a line break at its end")
	for _, name := range c.Hosts {
		faults.Check(isName(name), "hosts",
			"must be names such as capture.internal, without scheme, port and path, got %q", name)
	}
	positive := func(key string, timeout time.Duration) {
		faults.Check(timeout > 0, key, "must be positive, got %s", timeout)
	}
	positive("read_timeout", c.ReadTimeout)
	positive("write_timeout", c.WriteTimeout)
	positive("idle_timeout", c.IdleTimeout)
	positive("stop_timeout", c.StopTimeout)
	return faults.Err()
}

// auditCanBeKept checks the directory of the audit log.
func auditCanBeKept(set *configs.Set) error {
	own, err := configs.SectionOf[Config](set)
	if err != nil || own.Audit.File == "" {
		return err
	}
	var faults configs.Faults
	if err := private.Check(filepath.Dir(own.Audit.File)); err != nil {
		faults.Addf("admin.audit.file", "%s: no change would be made", err)
	}
	return faults.Err()
}

// isVisible reports whether the text is visible ASCII.
func isVisible(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// isName reports whether the text may be the name of a host.
func isName(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	})
}

// StopBudget is the longest time that a stop takes.
func (c Config) StopBudget() time.Duration { return c.StopTimeout }

// Listens returns the address of the operators' listener.
func (c Config) Listens(*configs.Set) map[string]string { return map[string]string{"listen": c.Listen} }
