package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/user"
	"strings"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/terminal"
)

// Own is what the configuration says of the operators' listener.
type Own struct {
	Listen string
	Token  configs.Secret
}

// Flags are the flags of a command that asks the listener.
type Flags struct {
	server  string
	timeout time.Duration
}

const usualTimeout = 30 * time.Second

// Add adds the flags.
func (f *Flags) Add(flags *module.Flags) {
	flags.StringVar(&f.server, "server", "", "`URL` of the operators' listener (default: admin.listen, here)")
	flags.DurationVar(&f.timeout, "timeout", usualTimeout, "how long an answer may take, a `DURATION`")
}

// Client asks the listener of a service. It speaks to the service itself, and not by way of a proxy.
type Client struct {
	url     string
	own     Own
	timeout time.Duration
	http    *http.Client
}

// Client returns a client of the service that the user means. The error is one of the command line or of the
// configuration.
func (f *Flags) Client(own Own) (*Client, error) {
	if f.timeout <= 0 {
		return nil, module.Misusef("--timeout must be positive, got %s", f.timeout)
	}
	at, err := f.url(own)
	if err != nil {
		return nil, err
	}
	return &Client{
		url: at, own: own, timeout: f.timeout,
		http: &http.Client{
			Transport: &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse // the token is for this server
			},
		},
	}, nil
}

// url returns the URL of the listener, without a slash at its end.
func (f *Flags) url(own Own) (string, error) {
	if f.server != "" {
		text := f.server
		if !strings.Contains(text, "://") {
			text = "http://" + text
		}
		at, err := url.Parse(text)
		if err != nil || at.Host == "" || at.User != nil || at.RawQuery != "" || at.Fragment != "" ||
			at.Scheme != "http" && at.Scheme != "https" {
			return "", module.Misusef("--server must be a URL such as http://127.0.0.1:8001, without user and query")
		}
		return strings.TrimRight(text, "/"), nil
	}
	host, port, err := net.SplitHostPort(own.Listen)
	switch {
	case err != nil:
		return "", errors.New("admin.listen is no address: see capture config validate")
	case port == "0":
		return "", errors.New("admin.listen has port 0, so the port is not known: give --server, with the address " +
			"that the service prints behind \"metrics\" when it starts")
	case host == "" || net.ParseIP(host).IsUnspecified():
		host = "127.0.0.1" // an image without files may not know the name localhost
	}
	return (&url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}).String(), nil
}

// Answer is an answer of the listener.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// largestAnswer is how many bytes of an answer are read.
const largestAnswer = 16 << 20

// Request is a request of a command.
type Request struct {
	Method, Path string
	// Body is sent as JSON. Nil: there is none.
	Body any
	// Header holds names and values in turn.
	Header []string
}

// Do sends a request, once. The error says what the service has answered, or that nobody answers, and what to do; of an
// answer that is a problem it is a *api.Problem.
func (c *Client) Do(ctx context.Context, asked Request) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	body := []byte{}
	if asked.Body != nil {
		var err error
		if body, err = json.Marshal(asked.Body); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, asked.Method, c.url+asked.Path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if asked.Body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(asked.Header); i += 2 {
		request.Header.Set(asked.Header[i], asked.Header[i+1])
	}
	if c.own.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.own.Token.Reveal())
	}
	if name := actor(); name != "" {
		request.Header.Set(endpoint.ActorHeader, name)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.noAnswer(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer := &Answer{Status: response.StatusCode, Header: response.Header}
	if answer.Body, err = io.ReadAll(io.LimitReader(response.Body, largestAnswer)); err != nil {
		return nil, c.noAnswer(err)
	}
	if answer.Status >= http.StatusMultipleChoices {
		return answer, c.refusal(answer)
	}
	return answer, nil
}

// Get asks for a path and reads the JSON of the answer into a pointer. It returns the ETag of the answer.
func (c *Client) Get(ctx context.Context, path string, into any) (tag string, err error) {
	answer, err := c.Do(ctx, Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return "", err
	}
	return answer.Header.Get("ETag"), answer.Decode(into)
}

// Decode reads the JSON of the answer into a pointer.
func (a *Answer) Decode(into any) error {
	if err := json.Unmarshal(a.Body, into); err != nil {
		return fmt.Errorf("the answer is not one of this version of the service: %w", err)
	}
	return nil
}

// actor returns how the user is called on this machine, for the audit log.
func actor() string {
	me, err := user.Current()
	if err != nil {
		return ""
	}
	name := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, me.Username)
	return name[:min(len(name), endpoint.MaxName)]
}

func (c *Client) noAnswer(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return fmt.Errorf("no answer from %s: %w: is `capture serve` running there? --server names another address", c.url,
		err)
}

// refusal returns the error for an answer that is no success.
func (c *Client) refusal(a *Answer) error {
	var problem api.Problem
	if json.Unmarshal(a.Body, &problem) != nil || problem.Status != a.Status {
		said := cmp.Or(strings.TrimSpace(string(a.Body[:min(len(a.Body), 1000)])), http.StatusText(a.Status))
		if elsewhere := a.Header.Get("Location"); elsewhere != "" {
			said += ": it points to " + elsewhere + ": give that as --server"
		}
		return fmt.Errorf("%s answered %d, and not as the operators' listener does (--server, admin.listen): %s", c.url,
			a.Status, terminal.Escape(said))
	}
	switch {
	case problem.Status == http.StatusUnauthorized && c.own.Token == "":
		problem.Detail = "the service asks for its token: give the configuration of the service by --config, or " +
			"CAPTURE_ADMIN__TOKEN"
	case problem.Status == http.StatusUnauthorized:
		problem.Detail = "the service has another admin.token than the configuration of this command"
	}
	return &problem
}
