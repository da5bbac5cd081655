//go:build linux

package redisserver_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/testkit/redisserver"
)

func TestTheProxyCountsCommandsAndRoundTrips(t *testing.T) {
	redisserver.Integration(t)
	t.Parallel()
	server := redisserver.Start(t, redisserver.Options{})
	proxy, err := redisserver.NewProxy(server)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", proxy.Addr)
	require.NoError(t, err)
	answers := bufio.NewReader(conn)
	ask := func(request string, lines ...string) {
		_, err := io.WriteString(conn, request)
		require.NoError(t, err)
		for _, want := range lines {
			line, err := answers.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, want, strings.TrimSpace(line))
		}
	}
	ask("*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n")
	for line := ""; line != "*0\r\n"; { // the last field, modules, is empty
		line, err = answers.ReadString('\n')
		require.NoError(t, err)
	}
	const set = "*3\r\n$3\r\nset\r\n$1\r\na\r\n$4\r\n*1\r\n\r\n"
	require.Equal(t, int64(1), proxy.Traffic().RoundTrips)
	require.Zero(t, proxy.Traffic().Sum(), "HELLO is no work")
	ask(set, "+OK")
	before := proxy.Traffic()
	require.Equal(t, int64(1), before.Sum())
	ask(set+set+"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "+OK", "+OK", "$4", "*1", "")
	ask("*4\r\n$4\r\nEVAL\r\n$40\r\nreturn {redis.call('get', KEYS[1]), 7.5}\r\n$1\r\n1\r\n$1\r\na\r\n",
		"*2", "$4", "*1", "", ":7")
	ask("*4\r\n$4\r\nHSET\r\n$1\r\nh\r\n$1\r\nf\r\n$1\r\nv\r\n", ":1")
	ask("*2\r\n$7\r\nHGETALL\r\n$1\r\nh\r\n", "%1", "$1", "f", "$1", "v")
	ask("*2\r\n$3\r\nGET\r\n$1\r\nb\r\n", "_")
	since := proxy.Traffic().Since(before)
	require.Equal(t, redisserver.Traffic{
		Commands:   map[string]int64{"SET": 2, "GET": 2, "EVAL": 1, "HSET": 1, "HGETALL": 1},
		RoundTrips: 5,
	}, since)
	require.Equal(t, int64(7), since.Sum())

	proxy.Cut()
	_, err = answers.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}
