//go:build linux

package redisserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// doPatience is how long the server may take to answer a command of the test's own.
const doPatience = 30 * time.Second

// Do sends the server a command, on a connection of its own, and returns the answer: a string, an int64, nil, or a
// []any of these. An answer that is an error is a ReplyError. The commands of tests are few: this is not the client
// that the service uses.
func (s *Server) Do(command ...string) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), doPatience)
	defer cancel()
	var dialer interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	} = new(net.Dialer)
	if s.TLS != nil {
		dialer = &tls.Dialer{Config: s.TLS}
	}
	conn, err := dialer.DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(doPatience)); err != nil {
		return nil, err
	}
	answers := bufio.NewReader(conn)
	if s.Password != "" {
		if _, err := ask(conn, answers, "AUTH", s.Password); err != nil {
			return nil, fmt.Errorf("AUTH: %w", err)
		}
	}
	reply, err := ask(conn, answers, command...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command[0], err)
	}
	return reply, nil
}

// ask sends one command and reads its answer.
func ask(to io.Writer, answers *bufio.Reader, command ...string) (any, error) {
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(command))
	for _, argument := range command {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(argument), argument)
	}
	if _, err := io.WriteString(to, request.String()); err != nil {
		return nil, err
	}
	return readReply(answers)
}

// ReplyError is an answer that is an error.
type ReplyError string

func (e ReplyError) Error() string { return string(e) }

// readReply reads an answer in the protocol RESP2.
func readReply(from *bufio.Reader) (any, error) {
	line, err := from.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return nil, errShape
	}
	switch kind, rest := line[0], line[1:]; kind {
	case '+':
		return rest, nil
	case '-':
		return nil, ReplyError(rest)
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	case '$':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return nil, err
		}
		text := make([]byte, n+len("\r\n"))
		_, err = io.ReadFull(from, text)
		return string(text[:n]), err
	case '*':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return nil, err
		}
		list := make([]any, n)
		for i := range list {
			// An element may be an error of its own, as in the answer to EXEC.
			if list[i], err = readReply(from); err != nil {
				var reply ReplyError
				if !errors.As(err, &reply) {
					return nil, err
				}
				list[i] = reply
			}
		}
		return list, nil
	default:
		return nil, fmt.Errorf("%w: %q", errShape, line)
	}
}
