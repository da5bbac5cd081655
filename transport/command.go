package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/terminal"
)

// peer is the service that a command speaks to.
type peer struct {
	host    string // as the user has given it; empty: the configured listener
	timeout time.Duration
}

func (p *peer) flags(flags *module.Flags, timeout time.Duration) {
	flags.StringVar(&p.host, "host", "", "`URL` of the service (default: transport.listen, on this machine)")
	flags.DurationVar(&p.timeout, "timeout", timeout, "how long the answer may take, a `DURATION`")
}

// url returns the URL of the service, without a slash at its end.
func (p *peer) url(cfg Config) (string, error) {
	if p.timeout <= 0 {
		return "", module.Misusef("--timeout must be positive, got %s", p.timeout)
	}
	if p.host != "" {
		text := p.host
		if !strings.Contains(text, "://") {
			text = "http://" + text
		}
		if !isHost(text) {
			return "", module.Misusef("--host must be a URL such as http://localhost:8000, without user and query")
		}
		return strings.TrimRight(text, "/"), nil
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	switch {
	case err != nil:
		return "", errors.New("transport.listen is no address: see capture config validate") // it may hold a password
	case port == "0":
		return "", errors.New("transport.listen has port 0, so the port is not known: give --host")
	case host == "" || net.ParseIP(host).IsUnspecified():
		host = "127.0.0.1" // an image without files may not know the name localhost
	}
	return (&url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}).String(), nil
}

// largestAnswer is how many bytes of an answer a command reads.
const largestAnswer = 64 << 10

// answer is what the service has answered.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends one request and never repeats it. It speaks to the service itself, and not by way of a proxy.
func (p *peer) ask(ctx context.Context, method, url, body string) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, noAnswer(url, err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, largestAnswer))
	if err != nil {
		return nil, noAnswer(url, err)
	}
	return &answer{response.StatusCode, response.Header, strings.TrimSpace(string(text))}, nil
}

func noAnswer(asked string, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return fmt.Errorf("no answer from %s: %w: is `capture serve` running there?", asked, err)
}

// refusal returns the error for an answer that is not the one that was hoped for.
func (a *answer) refusal() error {
	said := cmp.Or(a.body, http.StatusText(a.status))
	if elsewhere := a.header.Get("Location"); elsewhere != "" {
		said += ": it points to " + elsewhere + ": give that as --host"
	}
	return fmt.Errorf("the service answered %d: %s", a.status, terminal.Escape(said))
}
