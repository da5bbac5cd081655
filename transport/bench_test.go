package transport

import (
	"bufio"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/transport/route"
)

// benchmarkServer sends one request after the other on a connection, over the loopback: what the server itself costs,
// without a protocol. The client allocates nothing.
func benchmarkServer(b *testing.B, path, headers, body string) {
	config := testConfig()
	health, err := observability.NewHealth(nil)
	require.NoError(b, err)
	routes := []route.Route{{Path: path, Methods: []string{"POST"},
		Handle: func(context.Context, *route.Request) route.Response {
			return route.Response{Status: 200, ContentType: route.TypeText, Body: "ok"}
		}}}
	server, err := NewServer(configs.Fixed(config), 0, routes, nil, newBudget(config, 0), health, zap.NewNop(),
		tally.NoopScope, func(error) {})
	require.NoError(b, err)
	require.NoError(b, server.Start(context.Background()))
	b.Cleanup(func() { require.NoError(b, server.Stop(context.Background())) })
	conn, err := net.Dial("tcp", server.Addr().String())
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	sent := []byte("POST " + path + " HTTP/1.1\r\nHost: capture.example\r\nContent-Length: " + strconv.Itoa(len(body)) +
		"\r\n" + headers + "\r\n" + body)
	answers := bufio.NewReader(conn)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(sent); err != nil {
			b.Fatal(err)
		}
		if !skipAnswer(answers) {
			b.Fatal("no answer")
		}
	}
}

// skipAnswer reads an answer of which the body is "ok".
func skipAnswer(answers *bufio.Reader) bool {
	for {
		line, err := answers.ReadSlice('\n')
		if err != nil {
			return false
		}
		if len(line) == 2 {
			var body [2]byte
			_, err := io.ReadFull(answers, body[:])
			return err == nil && string(body[:]) == "ok"
		}
	}
}

const browserHeaders = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n" +
	"Accept: */*\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n" +
	"Content-Type: text/plain\r\nOrigin: https://shop.example\r\nReferer: https://shop.example/\r\n" +
	"Sec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: cross-site\r\n"

func BenchmarkServerSingle(b *testing.B) { benchmarkServer(b, "/e", browserHeaders, event) }

func BenchmarkServer10KB(b *testing.B) {
	benchmarkServer(b, "/batch", browserHeaders, strings.Repeat("x", 10<<10))
}
