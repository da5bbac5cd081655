package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"time"
)

// TCP binds the TCP address that the key configures. An error names the key. If the address is in use, the error also
// tells how to find the process that uses it. When the process has no file descriptor left for another connection, the
// listener's Accept waits for one instead of failing: clients give the descriptors back when they leave, and the
// service goes on.
func TCP(ctx context.Context, key, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(address)
		return nil, fmt.Errorf("%s: cannot listen on %s: %w: see who uses it with %s",
			key, address, syscall.EADDRINUSE, whoListens(port))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: cannot listen on %s: %w", key, address, err)
	}
	return patientListener{listener}, nil
}

// whoListens returns the command that shows which process listens on a TCP port.
func whoListens(port string) string {
	if runtime.GOOS == "linux" {
		return fmt.Sprintf("ss -ltnp 'sport = :%s'", port)
	}
	return fmt.Sprintf("lsof -nP -iTCP:%s -sTCP:LISTEN", port)
}

type patientListener struct{ net.Listener }

// Accept implements net.Listener.
func (l patientListener) Accept() (net.Conn, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		conn, err := l.Listener.Accept()
		if err == nil || !isPassing(err) {
			return conn, err
		}
		time.Sleep(pause)
	}
}

// isPassing reports whether accepting a connection failed for a reason that goes away by itself.
func isPassing(err error) bool {
	for _, passing := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// URL returns the URL at which this machine reaches an HTTP server that listens on the address. It writes localhost for
// an unspecified host.
func URL(address net.Addr) string {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return "http://" + address.String()
	}
	if net.ParseIP(host).IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
