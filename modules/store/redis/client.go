package redis

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/opencapture/capture/modules/store"
)

// noContext is for commands that go into a pipeline, which has the context.
var noContext = context.Background()

const (
	// patience bounds what has no closer deadline, such as a new connection that nobody waits for any more.
	patience = time.Second
	// keepAlive is how long a connection is kept that nobody uses.
	keepAlive = 5 * time.Minute
)

// quiet keeps go-redis from writing to standard error. What goes wrong is in the errors of calls.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

var hush = sync.OnceFunc(func() { redis.SetLogger(quiet{}) })

// connect returns a client that has no connection yet. The client tries nothing twice: a call has no time for that. It
// calls ready with each new connection. An answer may take longest, unless the context of a call ends before.
func connect(
	server store.Server, pool int, longest time.Duration, ready func(context.Context, *redis.Conn) error,
) (redis.UniversalClient, error) {
	hush()
	if _, _, err := server.Login.Reveal(); err != nil {
		return nil, err
	}
	sentinelUser, sentinelPassword, err := server.SentinelUser.Reveal()
	if err != nil {
		return nil, err
	}
	if _, err := server.TLS.Client(""); err != nil {
		return nil, err
	}
	options := &redis.UniversalOptions{
		Addrs: server.Addrs, MasterName: server.Master, IsClusterMode: server.Clustered(), DB: server.Database,
		ClientName: "capture", SentinelUsername: sentinelUser, SentinelPassword: sentinelPassword,
		CredentialsProviderContext: func(context.Context) (string, string, error) { return server.Login.Reveal() },
		Dialer:                     dialer(server.TLS),
		OnConnect:                  ready,
		Protocol:                   2,
		DisableIdentity:            true,
		MaxRetries:                 -1, MaxRedirects: 3, DialerRetries: 1,
		DialTimeout: patience, ReadTimeout: longest, WriteTimeout: longest, PoolTimeout: longest,
		ContextTimeoutEnabled: true,
		PoolSize:              pool, PipelinePoolSize: -1, ConnMaxIdleTime: keepAlive,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch {
	case server.Master != "":
		return redis.NewFailoverClient(options.Failover()), nil
	case server.Clustered():
		cluster := options.Cluster()
		cluster.DisableRoutingPolicies = true
		return redis.NewClusterClient(cluster), nil
	default:
		return redis.NewClient(options.Simple()), nil
	}
}

// dialer returns a function that opens connections. It reads the files of the certificates for each of them.
func dialer(settings store.TLS) func(ctx context.Context, network, address string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: patience}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if !settings.Enabled {
			return plain.DialContext(ctx, network, address)
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		config, err := settings.Client(host)
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{NetDialer: plain, Config: config}).DialContext(ctx, network, address)
	}
}
