//go:build linux

package redisserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

// Proxy stands between clients and a server without TLS, and counts what passes.
type Proxy struct {
	// Addr is where clients reach the server.
	Addr string

	to       string
	listener net.Listener
	running  sync.WaitGroup

	mu         sync.Mutex
	commands   map[string]int64
	roundTrips int64
	open       map[net.Conn]bool
}

// Traffic is what has passed a proxy.
type Traffic struct {
	// Commands counts commands by their names in capital letters. A script is one command, whatever it does.
	Commands map[string]int64
	// RoundTrips counts how often a client had sent something when all that it had sent before was answered: a pipeline
	// is one round trip.
	RoundTrips int64
}

// setUp holds the commands with which a client sets up a connection or asks for the shape of a Cluster, and those of a
// client that listens for messages.
var setUp = map[string]bool{
	"HELLO": true, "AUTH": true, "CLIENT": true, "SELECT": true, "READONLY": true, "COMMAND": true, "CLUSTER": true,
	"PING": true, "SUBSCRIBE": true, "PSUBSCRIBE": true, "SSUBSCRIBE": true, "SCRIPT": true,
}

// Sum returns the number of commands that are part of a client's work.
func (t Traffic) Sum() int64 {
	sum := int64(0)
	for name, n := range t.Commands {
		if !setUp[name] {
			sum += n
		}
	}
	return sum
}

// Since returns what has passed since before.
func (t Traffic) Since(before Traffic) Traffic {
	since := Traffic{Commands: map[string]int64{}, RoundTrips: t.RoundTrips - before.RoundTrips}
	for name, n := range t.Commands {
		if n -= before.Commands[name]; n > 0 {
			since.Commands[name] = n
		}
	}
	return since
}

// NewProxy starts a proxy to a server. Close ends it.
func NewProxy(server *Server) (*Proxy, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		Addr: listener.Addr().String(), to: server.Addr, listener: listener, commands: map[string]int64{},
		open: map[net.Conn]bool{},
	}
	p.running.Add(1)
	panics.Go(zap.NewNop(), "a proxy to Redis", func() {
		defer p.running.Done()
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			p.running.Add(1)
			panics.Go(zap.NewNop(), "a connection to Redis", func() {
				defer p.running.Done()
				p.pass(client)
			})
		}
	})
	return p, nil
}

// Traffic returns what has passed so far.
func (p *Proxy) Traffic() Traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Traffic{Commands: maps.Clone(p.commands), RoundTrips: p.roundTrips}
}

// Cut closes all connections. Clients may connect again.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		_ = conn.Close()
	}
}

// Close ends the proxy.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.Cut()
	p.running.Wait()
}

// pass passes on one connection until an end closes it.
func (p *Proxy) pass(client net.Conn) {
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.to)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.open[client] = true
	p.mu.Unlock()
	// waiting is how many commands have not been answered.
	var waiting atomic.Int64
	both := panics.NewGroup(zap.NewNop())
	both.Go("the requests of a connection to Redis", func() {
		_ = stream(server, client, func(item string, name string) {
			if !strings.HasPrefix(item, "*") {
				return
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.commands[strings.ToUpper(name)]++
			if waiting.Add(1) == 1 {
				p.roundTrips++
			}
		})
		_, _ = client.Close(), server.Close()
	})
	_ = stream(client, server, func(item, _ string) {
		if !strings.HasPrefix(item, ">") { // a message that nobody has asked for
			waiting.Add(-1)
		}
	})
	_, _ = client.Close(), server.Close()
	both.Wait()
	p.mu.Lock()
	delete(p.open, client)
	p.mu.Unlock()
}

// stream copies the items of the protocol RESP from one connection to the other, and shows the first line of each and,
// of a command, its name. What one end has sent at once is passed on at once.
func stream(to io.Writer, from io.Reader, see func(item, name string)) error {
	const room = 256 << 10
	in, out := bufio.NewReaderSize(from, room), bufio.NewWriterSize(to, room)
	for {
		item, name, err := copyItem(out, in)
		if err != nil {
			return err
		}
		see(item, name)
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

// copyItem copies an item. name is the first text in it.
func copyItem(to *bufio.Writer, from *bufio.Reader) (item, name string, err error) {
	item, err = from.ReadString('\n')
	if err != nil {
		return "", "", err
	}
	if _, err := to.WriteString(item); err != nil {
		return "", "", err
	}
	text := strings.TrimRight(item, "\r\n")
	if text == "" {
		return "", "", errors.New("an empty line")
	}
	switch kind := text[0]; kind {
	case '$', '=', '!':
		n, err := strconv.Atoi(text[1:])
		if err != nil || n < 0 {
			return item, "", err
		}
		body := make([]byte, n+len("\r\n"))
		if _, err := io.ReadFull(from, body); err != nil {
			return "", "", err
		}
		_, err = to.Write(body)
		return item, string(body[:n]), err
	case '*', '~', '>', '%', '|':
		n, err := strconv.Atoi(text[1:])
		if err != nil {
			return "", "", fmt.Errorf("%q: %w", text, err)
		}
		switch kind {
		case '%':
			n *= 2
		case '|': // attributes, which an item follows
			n = 2*n + 1
		}
		for i := range n {
			_, text, err := copyItem(to, from)
			if err != nil {
				return "", "", err
			}
			if i == 0 {
				name = text
			}
		}
	}
	return item, name, nil
}
