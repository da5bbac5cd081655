package store

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opencapture/capture/configs"
)

// Config is the configuration section "store".
type Config struct {
	Timeout time.Duration `key:"timeout" live:"true" doc:"How long a call of the store may take. A request waits at most so long for a store that does not answer, and only until the breaker opens."`
	Breaker Breaker       `key:"breaker" live:"true"`
	Dir     string        `key:"dir" doc:"Directory that the store of a single node, one without redis.addrs, keeps its data in, so that a restart resets no quota. One process at a time uses it. A directory that other users can write to is refused; the service makes a missing one with the right mode."`
	Local   LocalConfig   `key:"local"`
	Redis   Redis         `key:"redis"`
	PostHog PostHogRedis  `key:"posthog"`
}

// LocalConfig is the group "store.local": the store of a single node, one without redis.addrs.
type LocalConfig struct {
	Memory   configs.ByteSize `key:"memory" doc:"Memory for what is in work and what was delivered within the window of deduplication: about 25 bytes an event, so that 64MiB hold 2.2 million events. When it is full, what was delivered longest ago is forgotten first. It is taken as it is needed. 0: a sixteenth of the memory limit (see app.memory_limit), and at most 64MiB."`
	Counters configs.ByteSize `key:"counters" doc:"Memory for the counters of quotas and rates, about 320 bytes each. When it is full, further counters fail as if the store did not answer. It is taken as it is needed. 0: a sixty-fourth of the memory limit, and at most 16MiB."`
}

// Breaker says when the store counts as away.
type Breaker struct {
	Failures int           `key:"failures" doc:"So many round trips in a row that get no answer open the breaker. While it is open, calls fail at once. With 1, no request waits for a dead store twice. Each primary of a Redis Cluster has a breaker of its own."`
	Pause    time.Duration `key:"pause" doc:"How often the service looks, while the breaker is open, whether the store is there again. It looks for the first time at once."`
}

// Login is how to log in to a server.
type Login struct {
	Username     string
	Password     configs.Secret
	PasswordFile string
}

// TLS says how connections to Redis are encrypted. The servers' certificates are always verified.
type TLS struct {
	Enabled    bool   `key:"enabled" doc:"Encrypt the connections, those to the Sentinels included."`
	CAFile     string `key:"ca_file" doc:"PEM file with the authorities that verify the servers' certificates. The service reads this file and the others here again for each new connection. Empty: the system's authorities."`
	CertFile   string `key:"cert_file" doc:"PEM file with the client certificate, for servers that ask for one."`
	KeyFile    string `key:"key_file" doc:"PEM file with the client certificate's key."`
	ServerName string `key:"server_name" doc:"Name that the servers' certificates must carry. Empty: the host in each server's address."`
}

// SentinelLogin is the group "sentinel".
type SentinelLogin struct {
	Username     string         `key:"username" doc:"User to log in to the Sentinels as. Empty: the user default."`
	Password     configs.Secret `key:"password" doc:"That user's password. Empty, and no password_file: no login to the Sentinels."`
	PasswordFile string         `key:"password_file" doc:"File with that password, instead of password. The service reads it when it starts."`
}

// Server is how to reach a Redis: one server, Sentinels or a Cluster.
type Server struct {
	Addrs        []string
	Master       string
	Cluster      bool
	Login        Login
	SentinelUser Login
	Database     int
	TLS          TLS
}

// Redis is the group "store.redis": the Redis that the nodes share.
type Redis struct {
	Addrs        []string         `key:"addrs" doc:"Addresses of Redis, as host:port: one server, several nodes of a Redis Cluster, or the Sentinels (with master). Empty: this node is alone and keeps its state itself, in dir."`
	Master       string           `key:"master" doc:"Name under which the Sentinels know the primary. With it, addrs are the Sentinels."`
	Cluster      bool             `key:"cluster" doc:"The server is a Redis Cluster, also if addrs has one address only."`
	Username     string           `key:"username" doc:"User to log in as, where Redis has users (ACL). Empty: the user default."`
	Password     configs.Secret   `key:"password" doc:"The user's password. Empty, and no password_file: no login."`
	PasswordFile string           `key:"password_file" doc:"File with the password, instead of password. The service reads it for each new connection."`
	Sentinel     SentinelLogin    `key:"sentinel"`
	Database     int              `key:"database" doc:"Number of the database. A Redis Cluster has only 0."`
	TLS          TLS              `key:"tls"`
	Prefix       string           `key:"prefix" doc:"What all keys begin with. Nodes that share their state have the same prefix. The number is the version of the formats, so that two releases can use one Redis."`
	Replicas     int              `key:"replicas" live:"true" doc:"So many replicas must have a draw from a quota or rate before it counts (WAIT), so that a failover lets nothing pass twice. 0: a draw counts when the primary has it."`
	Pool         int              `key:"pool" doc:"Most connections to each server. Requests share connections, so few are enough."`
	Queue        configs.ByteSize `key:"queue" doc:"Most memory for what ended and Redis does not know yet, while Redis is slow or away. What finds no room is given up and counted: such an event that is sent again is a duplicate in Kafka."`
}

// PostHogRedis is the group "store.posthog": the Redis of a PostHog installation, which this service only reads.
type PostHogRedis struct {
	Addrs        []string       `key:"addrs" doc:"Addresses of the Redis of a PostHog installation, as host:port: its quotas and restrictions hold here as well. Nothing is written there. Empty: there is none."`
	Master       string         `key:"master" doc:"Name under which the Sentinels know the primary. With it, addrs are the Sentinels."`
	Cluster      bool           `key:"cluster" doc:"The server is a Redis Cluster, also if addrs has one address only."`
	Username     string         `key:"username" doc:"User to log in as, where Redis has users (ACL). Empty: the user default."`
	Password     configs.Secret `key:"password" doc:"The user's password. Empty, and no password_file: no login."`
	PasswordFile string         `key:"password_file" doc:"File with the password, instead of password. The service reads it for each new connection."`
	Sentinel     SentinelLogin  `key:"sentinel"`
	Database     int            `key:"database" doc:"Number of the database. A Redis Cluster has only 0."`
	TLS          TLS            `key:"tls"`
	Prefix       string         `key:"prefix" doc:"What PostHog puts before the keys of its sorted sets: its REDIS_KEY_PREFIX."`
	Timeout      time.Duration  `key:"timeout" doc:"How long an answer may take. A large set is read in several. Requests wait for no read but that of a token that is not known, and for that no longer than auth.timeout."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Timeout: 50 * time.Millisecond,
		Breaker: Breaker{Failures: 1, Pause: 250 * time.Millisecond},
		Dir:     "./data/store",
		Redis:   Redis{Prefix: "capture:1:", Pool: 8, Queue: 16 * configs.MiB},
		PostHog: PostHogRedis{Timeout: 2 * time.Second},
	}
}

// The limits of settings.
const (
	longestTimeout = time.Second // a request waits for it
	longestPause   = time.Minute
	largestPool    = 1000
	largestPrefix  = 64
	smallestQueue  = 64 * configs.KiB
	mostReplicas   = 16
	// What the store of a single node takes at most unless it is configured.
	usualMemory, memoryShare     = 64 * configs.MiB, 16
	usualCounters, countersShare = 16 * configs.MiB, 64
	smallestMemory               = configs.MiB
	smallestCounters             = 64 * configs.KiB
	// loadTime is how long a start takes for each MiB of digests on the disk, on a slow machine.
	startTime, loadTime = time.Second, 10 * time.Millisecond
	// stopTime is how long the stop waits for what Redis has not been told yet.
	stopTime = time.Second
)

// Validate reports every fault.
func (c Config) Validate() error {
	var faults configs.Faults
	checkTime(&faults, "timeout", c.Timeout, longestTimeout)
	faults.Nest("breaker", c.Breaker.Validate())
	faults.Check(c.Dir != "", "dir", "must not be empty")
	faults.Check(c.Local.Memory == 0 || c.Local.Memory >= smallestMemory, "local.memory",
		"must be 0 or at least %s, got %s", smallestMemory, c.Local.Memory)
	faults.Check(c.Local.Counters == 0 || c.Local.Counters >= smallestCounters, "local.counters",
		"must be 0 or at least %s, got %s", smallestCounters, c.Local.Counters)
	faults.Nest("redis", c.Redis.Validate())
	faults.Nest("posthog", c.PostHog.Validate())
	return faults.Err()
}

// sized returns the section with local.memory and local.counters filled in if they are 0.
func (c Config) sized(limit int64) Config {
	fill := func(size *configs.ByteSize, share int64, usual, least configs.ByteSize) {
		if *size == 0 && limit > 0 {
			*size = min(usual, max(least, configs.ByteSize(limit/share)))
		} else if *size == 0 {
			*size = usual
		}
	}
	fill(&c.Local.Memory, memoryShare, usualMemory, smallestMemory)
	fill(&c.Local.Counters, countersShare, usualCounters, smallestCounters)
	return c
}

// MemoryBudget implements configs.MemoryBudgeter.
func (c Config) MemoryBudget(_ *configs.Set, limit int64) int64 {
	if c.inUse() == Local {
		c = c.sized(limit)
		return int64(c.Local.Memory + c.Local.Counters)
	}
	return int64(c.Redis.Queue)
}

// StartBudget is how long the start takes that reads what a single node has kept.
func (c Config) StartBudget() time.Duration {
	if c.inUse() != Local {
		return startTime
	}
	return startTime + time.Duration(c.sized(0).Local.Memory/configs.MiB)*loadTime
}

// StopBudget is how long the stop waits for what the store has not been told yet.
func (c Config) StopBudget() time.Duration { return stopTime }

func checkTime(faults *configs.Faults, key string, d, longest time.Duration) {
	faults.Check(d >= time.Millisecond && d <= longest, key, "must be from 1ms to %s, got %s", longest, d)
}

// Validate reports every fault.
func (b Breaker) Validate() error {
	var faults configs.Faults
	faults.Check(b.Failures >= 1, "failures", "must be at least 1, got %d", b.Failures)
	faults.Check(b.Pause >= 10*time.Millisecond && b.Pause <= longestPause, "pause",
		"must be from 10ms to %s, got %s", longestPause, b.Pause)
	return faults.Err()
}

// Server returns how to reach the Redis that the nodes share.
func (r Redis) Server() Server {
	return Server{
		Addrs: r.Addrs, Master: r.Master, Cluster: r.Cluster, Database: r.Database, TLS: r.TLS,
		SentinelUser: Login(r.Sentinel),
		Login:        Login{Username: r.Username, Password: r.Password, PasswordFile: r.PasswordFile},
	}
}

// Server returns how to reach the Redis of PostHog.
func (r PostHogRedis) Server() Server {
	return Server{
		Addrs: r.Addrs, Master: r.Master, Cluster: r.Cluster, Database: r.Database, TLS: r.TLS,
		SentinelUser: Login(r.Sentinel),
		Login:        Login{Username: r.Username, Password: r.Password, PasswordFile: r.PasswordFile},
	}
}

// Validate reports every fault.
func (r Redis) Validate() error {
	var faults configs.Faults
	faults.Nest("", r.Server().Validate())
	checkPrefix(&faults, r.Prefix)
	faults.Check(r.Prefix != "", "prefix", "must not be empty: other programs may use the same Redis")
	faults.Check(r.Replicas >= 0 && r.Replicas <= mostReplicas, "replicas", "must be from 0 to %d, got %d",
		mostReplicas, r.Replicas)
	faults.Check(r.Pool >= 1 && r.Pool <= largestPool, "pool", "must be from 1 to %d, got %d", largestPool, r.Pool)
	faults.Check(r.Queue >= smallestQueue, "queue", "must be at least %s, got %s", smallestQueue, r.Queue)
	return faults.Err()
}

// Validate reports every fault.
func (r PostHogRedis) Validate() error {
	var faults configs.Faults
	faults.Nest("", r.Server().Validate())
	faults.Check(len(r.Prefix) <= largestPrefix, "prefix", "must have at most %d bytes, got %d", largestPrefix,
		len(r.Prefix))
	checkTime(&faults, "timeout", r.Timeout, longestPause)
	return faults.Err()
}

// checkPrefix records a fault if keys with the prefix would not be where Redis Cluster expects them: a hash tag is the
// first pair of braces of a key.
func checkPrefix(faults *configs.Faults, prefix string) {
	faults.Check(!strings.ContainsAny(prefix, "{} \t\r\n") && len(prefix) <= largestPrefix, "prefix",
		"must have at most %d bytes, and no braces and no blanks, got %q", largestPrefix, prefix)
}

// Clustered reports whether the server is a Redis Cluster.
func (s Server) Clustered() bool { return s.Cluster || s.Master == "" && len(s.Addrs) > 1 }

// String tells where the server is, without the login.
func (s Server) String() string {
	kind := "at "
	switch {
	case s.Master != "":
		kind = "named " + strconv.Quote(s.Master) + " by the Sentinels "
	case s.Clustered():
		kind = "Cluster at "
	}
	return "Redis " + kind + strings.Join(s.Addrs, ", ")
}

// Validate reports every fault.
func (s Server) Validate() error {
	var faults configs.Faults
	for i, addr := range s.Addrs {
		host, port, err := net.SplitHostPort(addr)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		faults.Check(err == nil && host != "" && configs.IsHostName(host), "addrs",
			"entry %d must be host:port, such as redis:6379, got %q", i+1, configs.ConcealText(addr))
	}
	faults.Check(s.Master == "" || !s.Cluster, "cluster", "must be false with master: Sentinels watch over no Cluster")
	faults.Check(s.Database >= 0, "database", "must not be negative, got %d", s.Database)
	faults.Check(s.Database == 0 || !s.Clustered(), "database", "must be 0 with a Redis Cluster, which several addrs "+
		"without master are, got %d", s.Database)
	if len(s.Addrs) == 0 {
		faults.Check(s.Master == "" && !s.Cluster && s.Login == Login{} && s.SentinelUser == Login{} && s.TLS == TLS{},
			"addrs", "must not be empty, since other settings of this Redis are given")
	}
	faults.Nest("", s.Login.Validate())
	faults.Nest("sentinel", s.SentinelUser.Validate())
	faults.Check(s.Master != "" || s.SentinelUser == Login{}, "sentinel", "has no effect without master")
	faults.Nest("tls", s.TLS.Validate())
	return faults.Err()
}

// Validate reports every fault.
func (l Login) Validate() error {
	var faults configs.Faults
	faults.Check(l.Password == "" || l.PasswordFile == "", "password", "must not be given together with password_file")
	faults.Check(l.Username == "" || l.Password != "" || l.PasswordFile != "", "password",
		"must be given with username, or password_file instead")
	return faults.Err()
}

// Reveal returns the user and the password, which it reads anew if it is in a file. The last line of the file may end
// with a line break.
func (l Login) Reveal() (username, password string, err error) {
	if l.PasswordFile == "" {
		return l.Username, l.Password.Reveal(), nil
	}
	content, err := os.ReadFile(l.PasswordFile)
	if err != nil {
		return "", "", fmt.Errorf("read the password of Redis: %w", err)
	}
	password = strings.TrimRight(string(content), "\r\n")
	if password == "" {
		return "", "", fmt.Errorf("read the password of Redis: %s is empty", l.PasswordFile)
	}
	return l.Username, password, nil
}

// Validate reports every fault.
func (t TLS) Validate() error {
	var faults configs.Faults
	faults.Check((t.CertFile == "") == (t.KeyFile == ""), "cert_file", "must be given together with key_file")
	if !t.Enabled {
		for _, set := range []struct{ key, value string }{
			{"ca_file", t.CAFile}, {"cert_file", t.CertFile}, {"key_file", t.KeyFile}, {"server_name", t.ServerName},
		} {
			faults.Check(set.value == "", set.key, "has no effect while enabled is false")
		}
	}
	return faults.Err()
}

// Client returns the settings of a new connection, for which it reads the files. It returns nil without TLS.
func (t TLS) Client(host string) (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if t.ServerName != "" {
		config.ServerName = t.ServerName
	}
	if t.CAFile != "" {
		content, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("%s holds no certificate in the form PEM", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("the client certificate %s with its key %s: %w", t.CertFile, t.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// filesAreThere checks that the files that the section names can be read and hold what they should.
func filesAreThere(set *configs.Set) error {
	c, err := configs.SectionOf[Config](set)
	if err != nil {
		return err
	}
	var faults configs.Faults
	for _, of := range []struct {
		key    string
		server Server
	}{{"store.redis", c.Redis.Server()}, {"store.posthog", c.PostHog.Server()}} {
		_, _, err := of.server.Login.Reveal()
		faults.Check(err == nil, of.key+".password_file", "%v", err)
		_, _, err = of.server.SentinelUser.Reveal()
		faults.Check(err == nil, of.key+".sentinel.password_file", "%v", err)
		if _, err := of.server.TLS.Client(""); err != nil {
			var at *os.PathError
			key := ".tls.cert_file"
			if errors.As(err, &at) && at.Path == of.server.TLS.CAFile || of.server.TLS.CertFile == "" {
				key = ".tls.ca_file"
			}
			faults.Addf(of.key+key, "%v", err)
		}
	}
	return faults.Err()
}

// The values of a feature's setting on_store_failure.
const (
	// FailOpen: without the store, events pass without the feature.
	FailOpen = "open"
	// FailClosed: without the store, events fail, and clients send them again.
	FailClosed = "closed"
)

// CheckOnFailure records a fault unless the value of on_store_failure is one of the constants above.
func CheckOnFailure(faults *configs.Faults, value string) {
	faults.Check(value == FailOpen || value == FailClosed, "on_store_failure", "must be %s or %s, got %q", FailOpen,
		FailClosed, value)
}
