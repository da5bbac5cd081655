package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/IBM/sarama"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/panics"
)

const (
	configured = "kafka.brokers"
	advertised = "advertised.listeners of the brokers"
)

// dial returns a client of the cluster. The client is useful: a broker has answered at one of the addresses, and one at
// the addresses that the brokers give of themselves, since messages go to those alone. If none does, the error says why
// and, where that can be told, what to change. The topic is one that the user of the client may see.
func dial(ctx context.Context, addresses []string, topic string, config *sarama.Config) (sarama.Client, error) {
	if err := greet(ctx, addresses, configured, topic, config); err != nil {
		return nil, err
	}
	client, err := sarama.NewClient(addresses, config)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	if err := refresh(client, []string{topic}); err != nil {
		_ = client.Close() // nothing was written
		return nil, err
	}
	own := make([]string, 0, len(client.Brokers()))
	for _, broker := range client.Brokers() {
		own = append(own, broker.Addr())
	}
	if slices.ContainsFunc(own, func(address string) bool { return slices.Contains(addresses, address) }) {
		return client, nil
	}
	if err := greet(ctx, own, advertised, topic, config); err != nil {
		_ = client.Close() // nothing was written
		return nil, &strangerError{
			text:  "the brokers say that they are at " + strings.Join(own, ", ") + ": " + err.Error(),
			cause: err,
		}
	}
	return client, nil
}

// greet connects to the addresses, all at once, and logs in. It returns nil as soon as one of them answers as a broker
// does. If none does, the error says of each what stands against it and, where that can be told, what to change. It
// takes no longer than connect_timeout and ends with ctx. The setting is that which has the addresses.
//
// sarama's own client, which comes after greet, tries the addresses one after the other, waits longer for each, and
// does not say why a broker has refused a login.
func greet(ctx context.Context, addresses []string, setting, topic string, config *sarama.Config) error {
	ctx, cancel := context.WithTimeout(ctx, config.Net.DialTimeout)
	line := &line{ctx: ctx}
	talks := panics.NewGroup(zap.NewNop())
	defer func() {
		cancel()
		line.cut()
		talks.Wait()
	}()
	own := *config
	own.Net.ReadTimeout = own.Net.DialTimeout
	own.Net.Proxy.Enable, own.Net.Proxy.Dialer = true, line
	type answer struct {
		of  int
		err error
	}
	answers := make(chan answer, len(addresses))
	faults := make([]error, len(addresses))
	for i, address := range addresses {
		faults[i] = named(addresses, address, noAnswer(&own))
		talks.Go("the first words to a broker", func() {
			answers <- answer{i, panics.Catch(func() error { return meet(address, setting, topic, &own) })}
		})
	}
	for range addresses {
		select {
		case answer := <-answers:
			if answer.err == nil {
				return nil
			}
			faults[answer.of] = named(addresses, addresses[answer.of], answer.err)
		case <-ctx.Done():
			return errors.Join(faults...)
		}
	}
	return errors.Join(faults...)
}

// line dials for sarama, which offers no other way to end what it waits for.
type line struct {
	ctx context.Context

	mu    sync.Mutex
	conns []net.Conn
}

// Dial implements proxy.Dialer.
func (l *line) Dial(network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(l.ctx, network, address)
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, conn)
		l.mu.Unlock()
	}
	return conn, err
}

// cut closes the connections. No connection is made after the context has ended.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		_ = conn.Close()
	}
}

// named puts the address before the error if there are several.
func named(addresses []string, address string, err error) error {
	var stranger *strangerError
	if len(addresses) > 1 && errors.As(err, &stranger) {
		return &strangerError{text: address + ": " + stranger.text, cause: stranger.cause}
	}
	return err
}

// meet opens a connection to one broker, logs in, asks about the topic, since a broker may answer what comes before
// that to everybody, and closes the connection.
func meet(address, setting, topic string, config *sarama.Config) error {
	broker := sarama.NewBroker(address)
	if err := broker.Open(config); err != nil {
		return err
	}
	connected, err := broker.Connected()
	if connected {
		_, err = broker.GetMetadata(sarama.NewMetadataRequest(config.Version, []string{topic}))
		_ = broker.Close()
	}
	var caught *panics.Error
	switch {
	case err == nil && connected, errors.As(err, &caught):
		return err
	case err == nil: // sarama has closed the connection, and keeps the reason to itself
		err = errClosedEarly
	}
	return &strangerError{text: explainRefusal(err, setting, config), cause: err}
}

var errClosedEarly = errors.New("the connection was closed before it was of use")

// strangerError is an address that is no broker for this client. Its text ends the chain of causes for the log.
type strangerError struct {
	text  string
	cause error
}

func (e *strangerError) Error() string { return e.text }

// Is makes errors.Is find the cause.
func (e *strangerError) Is(target error) bool { return errors.Is(e.cause, target) }

func noAnswer(config *sarama.Config) error {
	return &strangerError{
		text:  fmt.Sprintf("no answer within %s%s", config.Net.DialTimeout, perhaps(config)),
		cause: context.DeadlineExceeded,
	}
}

// perhaps says what to look at where the other side does not say what is wrong.
func perhaps(config *sarama.Config) string {
	if config.Net.TLS.Enable {
		return ": see that the port is a broker's and speaks TLS, as kafka.tls.enabled is true"
	}
	return ": see that the port is a broker's and speaks without TLS, as kafka.tls.enabled is false"
}

// explainRefusal says what stands against a connection, and what to change. The setting has the address.
func explainRefusal(err error, setting string, config *sarama.Config) string {
	var (
		record  tls.RecordHeaderError
		verify  *tls.CertificateVerificationError
		foreign x509.UnknownAuthorityError
		timeout net.Error
		lookup  *net.DNSError
		garbage sarama.PacketDecodingError
		alert   tls.AlertError
	)
	text := observability.RootCause(err).Error()
	switch {
	case errors.As(err, &record):
		return text + perhaps(config)
	case errors.As(err, &foreign):
		return text + ": put the authority of the brokers' certificates into kafka.tls.ca_file"
	case errors.As(err, &verify):
		return text + ": see kafka.tls.ca_file and kafka.tls.server_name"
	case errors.Is(err, sarama.ErrSASLAuthenticationFailed):
		return text + ": see kafka.sasl"
	case errors.As(err, &alert):
		return text + ": see kafka.tls"
	case errors.Is(err, sarama.ErrUnsupportedSASLMechanism), errors.Is(err, sarama.ErrIllegalSASLState),
		config.Net.SASL.Enable && errors.Is(err, sarama.ErrUnsupportedVersion):
		return fmt.Sprintf("%s: the broker takes no login by %s on this port, see kafka.sasl.mechanism", text,
			config.Net.SASL.Mechanism)
	case errors.As(err, &lookup):
		return text + ": see the names in " + setting
	case errors.As(err, &timeout) && timeout.Timeout():
		return noAnswer(config).Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return text + ": nobody listens there, see " + setting
	case errors.As(err, &garbage):
		return text + ": this is no answer of a broker" + perhaps(config)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, errClosedEarly):
		text = "the other side closed the connection" + perhaps(config)
		if config.Net.SASL.Enable {
			return text + fmt.Sprintf(", and that it takes the login by %s, see kafka.sasl", config.Net.SASL.Mechanism)
		}
		return text + ", and asks for no login, as kafka.sasl has none"
	}
	return text
}
