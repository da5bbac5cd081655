package store_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/store"
)

func TestTheDefaultsAreValid(t *testing.T) {
	t.Parallel()
	require.NoError(t, store.DefaultConfig().Validate())
}

func TestTheMemoryOfTheStoreFollowsTheLimit(t *testing.T) {
	t.Parallel()
	set := store.DefaultConfig()
	set.Local.Memory, set.Local.Counters = 3*configs.MiB, 2*configs.MiB
	redis := store.DefaultConfig()
	redis.Redis.Addrs, redis.Redis.Queue = []string{"a:1"}, 7*configs.MiB
	for name, test := range map[string]struct {
		config store.Config
		limit  configs.ByteSize
		want   configs.ByteSize
	}{
		"without a limit": {store.DefaultConfig(), 0, (64 + 16) * configs.MiB},
		"a large limit":   {store.DefaultConfig(), 64 * configs.GiB, (64 + 16) * configs.MiB},
		"a part of it":    {store.DefaultConfig(), 512 * configs.MiB, (32 + 8) * configs.MiB},
		"a small limit":   {store.DefaultConfig(), configs.MiB, configs.MiB + 64*configs.KiB},
		"as it is set":    {set, 512 * configs.MiB, 5 * configs.MiB},
		"Redis":           {redis, 512 * configs.MiB, 7 * configs.MiB},
	} {
		require.Equal(t, int64(test.want), test.config.MemoryBudget(nil, int64(test.limit)), name)
	}
	require.Equal(t, time.Second, redis.StartBudget())
	require.Equal(t, time.Second+30*time.Millisecond, set.StartBudget(), "what it keeps has to be read")
	require.Equal(t, time.Second, redis.StopBudget())
}

func TestAFaultySectionIsRefusedWithWhatToDo(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*store.Config){
		"timeout: must be from 1ms to 1s, got 0s":              func(c *store.Config) { c.Timeout = 0 },
		"breaker.failures: must be at least 1, got 0":          func(c *store.Config) { c.Breaker.Failures = 0 },
		"breaker.pause: must be from 10ms to 1m0s, got 1h0m0s": func(c *store.Config) { c.Breaker.Pause = time.Hour },
		"dir: must not be empty":                               func(c *store.Config) { c.Dir = "" },
		"redis.addrs: entry 1 must be host:port, such as redis:6379, got \"redis\"": func(c *store.Config) {
			c.Redis.Addrs = []string{"redis"}
		},
		"redis.addrs: must not be empty, since other settings of this Redis are given": func(c *store.Config) {
			c.Redis.Password = "secret"
		},
		"redis.password: must not be given together with password_file": func(c *store.Config) {
			c.Redis.Addrs, c.Redis.Password, c.Redis.PasswordFile = []string{"a:1"}, "secret", "file"
		},
		"redis.password: must be given with username, or password_file instead": func(c *store.Config) {
			c.Redis.Addrs, c.Redis.Username = []string{"a:1"}, "eve"
		},
		"redis.cluster: must be false with master: Sentinels watch over no Cluster": func(c *store.Config) {
			c.Redis.Addrs, c.Redis.Master, c.Redis.Cluster = []string{"a:1"}, "one", true
		},
		"redis.database: must be 0 with a Redis Cluster, which several addrs without master are, got 1": func(
			c *store.Config,
		) {
			c.Redis.Addrs, c.Redis.Database = []string{"a:1", "b:1"}, 1
		},
		"redis.sentinel: has no effect without master": func(c *store.Config) {
			c.Redis.Addrs, c.Redis.Sentinel.Password = []string{"a:1"}, "secret"
		},
		"redis.tls.ca_file: has no effect while enabled is false": func(c *store.Config) {
			c.Redis.Addrs, c.Redis.TLS.CAFile = []string{"a:1"}, "ca.pem"
		},
		"redis.prefix: must have at most 64 bytes, and no braces and no blanks, got \"a{b}\"": func(c *store.Config) {
			c.Redis.Prefix = "a{b}"
		},
		"redis.prefix: must not be empty: other programs may use the same Redis": func(c *store.Config) {
			c.Redis.Prefix = ""
		},
		"redis.replicas: must be from 0 to 16, got -1": func(c *store.Config) { c.Redis.Replicas = -1 },
		"redis.pool: must be from 1 to 1000, got 0":    func(c *store.Config) { c.Redis.Pool = 0 },
		"redis.queue: must be at least 64KiB, got 1":   func(c *store.Config) { c.Redis.Queue = 1 },
		"posthog.timeout: must be from 1ms to 1m0s, got -1s": func(c *store.Config) {
			c.PostHog.Timeout = -time.Second
		},
	} {
		cfg := store.DefaultConfig()
		change(&cfg)
		require.EqualError(t, cfg.Validate(), want)
	}
}

func TestAnAddressWithAPasswordIsRefusedWithoutShowingIt(t *testing.T) {
	t.Parallel()
	cfg := store.DefaultConfig()
	cfg.Redis.Addrs = []string{"redis://:hunter2@redis:6379/0"}
	err := cfg.Validate()
	require.ErrorContains(t, err, "redis.addrs: entry 1 must be host:port")
	require.NotContains(t, err.Error(), "hunter2")
}

func TestThePasswordIsReadAnewFromItsFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	login := store.Login{Username: "eve", PasswordFile: file}
	_, _, err := login.Reveal()
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, want := range []string{"first", "second"} {
		require.NoError(t, os.WriteFile(file, []byte(want+"\n"), 0o600))
		user, password, err := login.Reveal()
		require.NoError(t, err)
		require.Equal(t, []string{"eve", want}, []string{user, password})
	}
	require.NoError(t, os.WriteFile(file, []byte("\n"), 0o600))
	_, _, err = login.Reveal()
	require.EqualError(t, err, "read the password of Redis: "+file+" is empty")
}

func TestAServerIsShownWithoutItsLogin(t *testing.T) {
	t.Parallel()
	for want, redis := range map[string]store.Redis{
		"Redis at a:1":                             {Addrs: []string{"a:1"}, Username: "eve", Password: "secret"},
		"Redis Cluster at a:1, b:1":                {Addrs: []string{"a:1", "b:1"}},
		"Redis Cluster at a:1":                     {Addrs: []string{"a:1"}, Cluster: true},
		"Redis named \"one\" by the Sentinels a:1": {Addrs: []string{"a:1"}, Master: "one"},
	} {
		require.Equal(t, want, redis.Server().String())
	}
}
