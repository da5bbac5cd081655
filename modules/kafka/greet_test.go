package kafka_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/kafka"
)

// listener returns the address of a listener that answers every connection.
func listener(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	listening, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listening.Close()) })
	go func() {
		for {
			conn, err := listening.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close() //nolint:errcheck // the other side looks at it
				answer(conn)
			}()
		}
	}()
	return listening.Addr().String()
}

// web answers like a web server, once the other side has sent something.
func web(conn net.Conn) {
	_, _ = bufio.NewReader(conn).ReadByte()
	_, _ = fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
}

// Whatever stands between the service and Kafka, the start says in the banner that the service is not connected, the
// log has a line, and both say why and what to look at.
func TestABannerSaysWhyTheServiceIsNotConnected(t *testing.T) {
	t.Parallel()
	certificate, file := authority(t)
	_, foreign := authority(t)
	plaintext := fake(t).ListenAddrs()[0]
	encrypted := fake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}})).ListenAddrs()[0]
	guarded := fake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "capture", "secret")).ListenAddrs()[0]
	silent := listener(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	gone := listener(t, func(net.Conn) {})
	login := func(mechanism, password string) func(*kafka.Config) {
		return func(cfg *kafka.Config) {
			cfg.SASL = kafka.SASL{Mechanism: mechanism, Username: "capture", Password: configs.Secret(password)}
		}
	}
	encrypt := func(file string) func(*kafka.Config) {
		return func(cfg *kafka.Config) { cfg.TLS = kafka.TLS{Enabled: true, CAFile: file} }
	}
	for name, test := range map[string]struct {
		address string
		change  func(*kafka.Config)
		want    string
	}{
		"TLS against a plaintext broker":  {plaintext, encrypt(file), "speaks TLS, as kafka.tls.enabled is true"},
		"no TLS against a broker with it": {encrypted, nil, "speaks without TLS, as kafka.tls.enabled is false"},
		"a foreign authority":             {encrypted, encrypt(foreign), "certificates into kafka.tls.ca_file"},
		"a wrong password":                {guarded, login("PLAIN", "wrong"), "the login by PLAIN, see kafka.sasl"},
		"a mechanism that is not offered": {guarded, login("SCRAM-SHA-512", "secret"), "kafka.sasl"},
		"no login where one is asked for": {guarded, nil, "kafka.sasl"},
		"the port of a web server":        {listener(t, web), nil, "see that the port is a broker's"},
		"TLS to the port of a web server": {listener(t, web), encrypt(file), "does not look like a TLS handshake"},
		"a port that closes":              {gone, nil, "the other side closed the connection"},
		"a port that says nothing":        {silent, nil, "no answer"},
		"a port where nobody listens":     {freeAddress(t), nil, "connection refused: nobody listens there"},
		"a name that nobody knows":        {"kafka.invalid:9092", nil, "see the names in kafka.brokers"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(test.address)
			cfg.ConnectTimeout = 10 * time.Second // a busy machine, or a slow resolver, is no fault
			if test.address == silent {
				cfg.ConnectTimeout = 500 * time.Millisecond
			}
			if test.change != nil {
				test.change(&cfg)
			}
			bootstrap, err := kafka.NewBootstrap(cfg)
			require.NoError(t, err)
			core, logged := observer.New(zap.ErrorLevel)
			producer, err := kafka.NewProducer(cfg, bootstrap, zap.New(core), tally.NoopScope)
			require.NoError(t, err)
			require.NoError(t, producer.Start(t.Context()))
			defer func() { require.NoError(t, producer.Stop(t.Context())) }()

			require.Contains(t, producer.String(), "(not connected: ")
			require.Eventually(t, func() bool { return logged.Len() > 0 }, patience, time.Millisecond)
			require.Contains(t, producer.String(), test.want)
			require.Contains(t, logged.All()[0].Message, " cannot be used, trying again in the background: ")
			require.Contains(t, logged.All()[0].Message, test.want)
			require.NotContains(t, producer.String(), "secret")
		})
	}
}

func TestOneOfSeveralBrokersIsEnoughAndEachIsNamedIfThereIsNone(t *testing.T) {
	t.Parallel()
	broker := fake(t).ListenAddrs()[0]
	silent := listener(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	cfg := config(freeAddress(t), broker)
	cfg.ConnectTimeout = 30 * time.Second
	producer, _ := start(t, cfg)
	require.NotContains(t, producer.String(), "not connected")

	cfg = config(silent, freeAddress(t))
	cfg.ConnectTimeout = 500 * time.Millisecond
	producer, _ = newProducer(t, cfg)
	require.NoError(t, producer.Start(t.Context()))
	require.Eventually(t, func() bool {
		return strings.Contains(producer.Ready().Error(), cfg.Brokers[0]+": no answer within 500ms")
	}, patience, time.Millisecond)
	require.ErrorContains(t, producer.Ready(), cfg.Brokers[1]+": connection refused")
}

// observed starts a producer whose log can be read.
func observed(t *testing.T, cfg kafka.Config) (*kafka.Producer, *observer.ObservedLogs) {
	t.Helper()
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	core, logged := observer.New(zap.InfoLevel)
	producer, err := kafka.NewProducer(cfg, bootstrap, zap.New(core), tally.NoopScope)
	require.NoError(t, err)
	require.NoError(t, producer.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, producer.Stop(context.Background())) })
	return producer, logged
}

func TestTheLogSaysOnceThatMessagesAreNotAcknowledgedAndOnceThatTheyAreAgain(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	cfg := plain(broker.ListenAddrs()...)
	cfg.AckTimeout = 2 * time.Second // within it, a busy machine connects again
	producer, logged := observed(t, cfg)
	require.Eventually(t, func() bool { return producer.Ready() == nil }, patience, time.Millisecond)
	var faulty atomic.Bool
	faulty.Store(true)
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if faulty.Load() {
			return nil, io.ErrClosedPipe, true // the connection is closed
		}
		return nil, nil, false
	})
	for i := range 3 {
		<-send(producer, spread(cfg.Topics.Events, i, i+1)).done
	}
	faulty.Store(false)
	for i := range 3 {
		deliver(t, producer, spread(cfg.Topics.Events, 10+i, 11+i))
	}
	lines := logged.FilterMessageSnippet("acknowledged").All()
	require.Len(t, lines, 2)
	require.Equal(t, "messages are not acknowledged: the broker has closed the connection: EOF", lines[0].Message)
	require.Equal(t, "messages are acknowledged again", lines[1].Message)
}

// The address of kafka.brokers is right, and the brokers name themselves as only their own network knows them.
func TestBrokersThatGiveAnAddressOfThemselvesWhereNobodyAnswersAreNotConnected(t *testing.T) {
	t.Parallel()
	broker := fake(t)
	elsewhere := freeAddress(t)
	host, text, err := net.SplitHostPort(elsewhere)
	require.NoError(t, err)
	port, err := strconv.ParseInt(text, 10, 32)
	require.NoError(t, err)
	broker.ControlKey(int16(kmsg.Metadata), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		response := request.ResponseKind().(*kmsg.MetadataResponse)
		response.Brokers = []kmsg.MetadataResponseBroker{{Host: host, Port: int32(port)}}
		return response, nil, true
	})
	cfg := config(broker.ListenAddrs()...)
	want := "the brokers say that they are at " + elsewhere +
		": connection refused: nobody listens there, see advertised.listeners of the brokers"

	producer, logged := observed(t, cfg)
	require.Eventually(t, func() bool {
		return logged.FilterMessageSnippet(want).Len() > 0
	}, patience, time.Millisecond)
	require.Contains(t, producer.String(), "(not connected: "+want)
	require.ErrorContains(t, producer.Ready(), want)

	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	require.EqualError(t, kafka.Tail{}.Run(invocation(t.Context(), &output{}), cfg, bootstrap),
		"cannot use Kafka at "+cfg.Brokers[0]+": "+want)
}
