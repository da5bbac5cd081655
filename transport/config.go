package transport

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/transport/memory"
	"github.com/opencapture/capture/transport/posthog"
	"github.com/opencapture/capture/transport/route"
	"github.com/opencapture/capture/transport/setup"
)

// Config is the configuration section "transport".
type Config struct {
	Listen string   `key:"listen" doc:"Address of the listener that SDKs send to, as host:port."`
	Serve  []string `key:"serve" live:"true" doc:"Groups of paths that are served: analytics, recordings, ai, logs, reports (of browsers) and setup (the calls that SDKs make before they send). All other paths are answered 404, or passed on to upstream."`

	HeaderTimeout time.Duration `key:"header_timeout" live:"true" doc:"How long a client may take to send a request's line and headers. A changed timeout holds for the next request of every connection."`
	BodyTimeout   time.Duration `key:"body_timeout" live:"true" doc:"How long a client may take to send a request's body; after that it is answered 408."`
	BodyGrace     time.Duration `key:"body_grace" live:"true" doc:"How long a client may be behind min_body_rate, as when it sends nothing for a while; after that it is answered 408."`
	WriteTimeout  time.Duration `key:"write_timeout" live:"true" doc:"How long a client may take to read an answer."`
	IdleTimeout   time.Duration `key:"idle_timeout" live:"true" doc:"How long a connection is kept open between requests."`

	MaxHeader   configs.ByteSize `key:"max_header" live:"true" doc:"Largest request line, query included, with headers but without cookies, which mean nothing here; a larger one is answered 431. A connection takes the memory as the bytes come."`
	MaxBody     configs.ByteSize `key:"max_body" live:"true" doc:"Largest body on the wire, still compressed; a larger one is answered 413. Recordings and AI events have limits of their own."`
	MaxDecoded  configs.ByteSize `key:"max_decoded" live:"true" doc:"Largest body once it is decompressed and decoded; a larger one is answered 413. The events of an OTLP request together may be as large, and those beyond that are rejected alone."`
	MaxInFlight configs.ByteSize `key:"max_in_flight" live:"true" doc:"Bytes that the whole process may hold at once because of requests: bodies as read and as decoded, their events, and answers. When they are used up, requests are answered 503. The last quarter is kept for what takes at most 64KiB, so that large requests do not shut out small ones. 0: 40% of the memory limit (see app.memory_limit), or 512MiB if there is none."`
	MinBodyRate configs.ByteSize `key:"min_body_rate" live:"true" doc:"How many bytes of a body a client must send in a second, once it has used up body_grace. 0: body_timeout alone bounds a slow client."`

	MaxConnections  int     `key:"max_connections" live:"true" doc:"How many connections may be open; a further one is answered 503 and closed."`
	MaxAddressShare float64 `key:"max_address_share" live:"true" doc:"The part of max_connections, and of max_in_flight with the bodies that are being received or handled, that one client address may have, as a fraction; beyond it the client is answered 503. An IPv6 client is counted with its /64 network. The address is that behind the trusted_proxies, and a connection of such a proxy counts for nobody. If a proxy that is not trusted hides your clients' addresses, set 1: no address is counted."`

	RetryAfter time.Duration `key:"retry_after" live:"true" doc:"How long a 503 asks clients to wait, in whole seconds."`

	TrustedProxies configs.List `key:"trusted_proxies" live:"true" doc:"Networks of the proxies whose X-Forwarded-For is believed, as CIDRs or addresses. The client is the rightmost address that is in none of them. An entry file:PATH stands for the networks in a file, such as a provider's ranges: one a line, # begins a comment; the service reads the file again when it changes. Empty: no proxy is believed."`

	DrainDelay  time.Duration `key:"drain_delay" live:"true" doc:"How long a stop goes on serving after the service has become unready, so that load balancers notice. In this time every answer is the last on its connection."`
	StopTimeout time.Duration `key:"stop_timeout" live:"true" doc:"How long a stop waits for requests in flight, after the drain delay. If it is less than delivery.timeout, the stop may cut off requests whose events are not safe yet."`

	Upstream        string        `key:"upstream" doc:"URL of a PostHog host, such as https://us.i.posthog.com. The service passes on to it every request for a path that it does not serve itself: the calls that SDKs make before they send, their scripts under /static and /array, and the paths of groups that serve leaves out. Without setup in serve it passes on nothing. Whatever the host serves can be reached from here, so name one that serves SDKs alone. Empty: the service answers the calls of SDKs by itself, as setup says."`
	UpstreamTimeout time.Duration `key:"upstream_timeout" doc:"How long the upstream may take for its whole answer; after that the client is answered 502."`

	PostHog posthog.Config `key:"posthog"`
	Setup   setup.Config   `key:"setup"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Listen:        ":8000",
		Serve:         serveAll(),
		HeaderTimeout: 10 * time.Second,
		BodyTimeout:   time.Minute,
		WriteTimeout:  10 * time.Second,
		BodyGrace:     10 * time.Second,
		IdleTimeout:   75 * time.Second,
		MaxHeader:     64 * configs.KiB,
		MaxBody:       20 * configs.MiB,
		MaxDecoded:    100 * configs.MiB,
		MinBodyRate:   configs.KiB,

		MaxConnections:  10_000,
		MaxAddressShare: 0.25,

		RetryAfter: 5 * time.Second,
		TrustedProxies: configs.ListOf(
			"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
		),
		StopTimeout:     15 * time.Second,
		UpstreamTimeout: 10 * time.Second,
		PostHog:         posthog.DefaultConfig(),
		Setup:           setup.DefaultConfig(),
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.CheckAddress("listen", c.Listen)
	for _, group := range c.Serve {
		faults.Check(slices.Contains(route.Groups(), route.Group(group)), "serve", "must be of %s, got %q",
			strings.Join(serveAll(), ", "), group)
	}
	faults.Check(len(c.Serve) > 0, "serve", "must name at least one of %s", strings.Join(serveAll(), ", "))
	for _, positive := range []struct {
		key   string
		value time.Duration
	}{
		{"header_timeout", c.HeaderTimeout}, {"body_timeout", c.BodyTimeout}, {"body_grace", c.BodyGrace},
		{"write_timeout", c.WriteTimeout},
		{"idle_timeout", c.IdleTimeout}, {"stop_timeout", c.StopTimeout}, {"upstream_timeout", c.UpstreamTimeout},
	} {
		faults.Check(positive.value > 0, positive.key, "must be positive, got %s", positive.value)
	}
	faults.Check(c.DrainDelay >= 0, "drain_delay", "must not be negative, got %s", c.DrainDelay)
	faults.Check(c.RetryAfter >= time.Second, "retry_after", "must be at least 1s, got %s", c.RetryAfter)
	faults.Check(c.MaxHeader >= 4*configs.KiB && c.MaxHeader <= configs.MiB, "max_header",
		"must be from 4KiB to 1MiB, got %s", c.MaxHeader)
	faults.Check(c.MaxBody > 0 && c.MaxBody <= configs.GiB, "max_body", "must be from 1 to 1GiB, got %s", c.MaxBody)
	faults.Check(c.MaxDecoded > 0 && c.MaxDecoded <= configs.GiB, "max_decoded",
		"must be from 1 to 1GiB, got %s", c.MaxDecoded)
	largest := c.largest()
	faults.Check(c.MaxInFlight == 0 || int64(c.MaxInFlight)-c.kept() >= int64(largest), "max_in_flight",
		"must hold at least one request of max_body or posthog.max_recording, and max_decoded (%s), "+
			"without the quarter that is kept for small requests, got %s", largest, c.MaxInFlight)
	faults.Check(c.MinBodyRate >= 0, "min_body_rate", "must not be negative, got %s", c.MinBodyRate)
	faults.Check(c.MaxConnections > 0, "max_connections", "must be positive, got %d", c.MaxConnections)
	faults.Check(c.MaxAddressShare > 0 && c.MaxAddressShare <= 1, "max_address_share",
		"must be a fraction over 0, and at most 1, got %g", c.MaxAddressShare)
	largest = max(c.MaxBody, c.PostHog.MaxRecording)
	faults.Check(c.MaxInFlight == 0 || c.share(int64(c.MaxInFlight)) >= int64(largest), "max_address_share",
		"must be a part of max_in_flight that holds max_body or posthog.max_recording (%s), got %g", largest,
		c.MaxAddressShare)
	if _, err := newNetworks(c.TrustedProxies.Items()); err != nil {
		faults.Addf("trusted_proxies", "%s", err)
	}
	faults.Check(c.Upstream == "" || isHost(c.Upstream), "upstream",
		"must be a URL such as https://us.i.posthog.com, got %q", c.Upstream)
	faults.Nest("posthog", c.PostHog.Validate())
	faults.Nest("setup", c.Setup.Validate())
	return faults.Err()
}

// kept returns how many bytes of the budget are kept for small requests, of at most memory.Small.
func (c Config) kept() int64 { return int64(c.MaxInFlight) / 4 }

// size gives the budget its bytes.
func (c Config) size(budget *memory.Budget) {
	budget.Keep(c.kept())
	budget.Resize(int64(c.MaxInFlight))
}

// share returns how much of a whole one address may have.
func (c Config) share(whole int64) int64 { return max(1, int64(float64(whole)*c.MaxAddressShare)) }

// largest is the most that one request takes as it comes and as it is decoded.
func (c Config) largest() configs.ByteSize {
	return max(c.MaxBody, c.PostHog.MaxRecording) + c.MaxDecoded
}

const (
	// usualInFlight is the budget of requests where neither the section nor a memory limit gives one.
	usualInFlight = 512 * configs.MiB
	// inFlightShare is the part of the memory limit that is the budget where the section gives none, in hundredths. The
	// rest is for messages, for the process itself, and for garbage that is not collected yet.
	inFlightShare = 40
)

// sized returns the section with max_in_flight filled in if it is 0. If a memory limit makes that less than the largest
// requests need, these are refused as too large.
func (c Config) sized(limit module.MemoryLimit) Config {
	switch {
	case c.MaxInFlight != 0:
	case limit > 0:
		c.MaxInFlight = configs.ByteSize(limit) / 100 * inFlightShare
	default:
		c.MaxInFlight = max(usualInFlight, 2*c.largest())
	}
	return c
}

// MemoryBudget implements configs.MemoryBudgeter.
func (c Config) MemoryBudget(_ *configs.Set, limit int64) int64 {
	return int64(c.sized(module.MemoryLimit(limit)).MaxInFlight)
}

// StopBudget returns how long a stop may take at most.
func (c Config) StopBudget() time.Duration { return c.DrainDelay + c.StopTimeout }

// Listens returns the address that the SDKs send to, by its key.
func (c Config) Listens(*configs.Set) map[string]string { return map[string]string{"listen": c.Listen} }

func serveAll() []string {
	var names []string
	for _, group := range route.Groups() {
		names = append(names, string(group))
	}
	return names
}

// serves reports whether the installation serves a group. A group that is not of the stock modules is always served,
// because somebody has put its module into the build.
func (c Config) serves(group route.Group) bool {
	return !slices.Contains(route.Groups(), group) || slices.Contains(c.Serve, string(group))
}

// isHost reports whether the text is the URL of a host, perhaps with a path, to which further paths can be added.
func isHost(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil &&
		!strings.ContainsAny(text, "?#")
}
