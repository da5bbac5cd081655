package kafka_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	login "github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/modules/kafka"
)

func writeFile(t *testing.T, file, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
}

// webToken makes an unsigned JSON Web Token of the user "capture".
func webToken(issued, expires time.Time) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none"}`)) + "." +
		encode(fmt.Appendf(nil, `{"sub":"capture","iat":%d,"exp":%d}`, issued.Unix(), expires.Unix())) + "."
}

// bearers returns a broker that lets in every client with a token that valid accepts. kfake does not know this login,
// so bearers answers the requests of a login itself. The broker takes the later requests of the connection as they are.
func bearers(t *testing.T, valid func(token string) bool) *kfake.Cluster {
	t.Helper()
	broker := fake(t)
	broker.ControlKey(int16(kmsg.SASLHandshake), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		response := request.ResponseKind().(*kmsg.SASLHandshakeResponse)
		response.SupportedMechanisms = []string{"OAUTHBEARER"}
		if request.(*kmsg.SASLHandshakeRequest).Mechanism != "OAUTHBEARER" {
			response.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		}
		return response, nil, true
	})
	broker.ControlKey(int16(kmsg.SASLAuthenticate), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		response := request.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		message := string(request.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes)
		token, began := strings.CutPrefix(message, "n,,\x01auth=Bearer ")
		token, ended := strings.CutSuffix(token, "\x01\x01")
		if !began || !ended || !valid(token) {
			response.ErrorCode = kerr.SaslAuthenticationFailed.Code
		}
		return response, nil, true
	})
	return broker
}

func TestATokenLogsIn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	for name, sasl := range map[string]kafka.SASL{
		"from a file":    {Mechanism: "OAUTHBEARER", TokenFile: file},
		"from a command": {Mechanism: "OAUTHBEARER", TokenCommand: []string{"cat", file}},
	} {
		t.Run(name, func(t *testing.T) {
			token := webToken(time.Now(), time.Now().Add(time.Hour))
			writeFile(t, file, token+"\n")
			broker := bearers(t, func(got string) bool { return got == token })
			cfg := config(broker.ListenAddrs()...)
			cfg.SASL = sasl
			producer, _ := start(t, cfg)
			send(producer, messages(cfg.Topics.Events, 0, 3)).requireAcknowledged(t)
		})
	}
}

func TestAnExpiredTokenIsReplacedWithoutARestart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	writeFile(t, file, "old")
	broker := bearers(t, func(got string) bool { return got == "new" })
	cfg := config(broker.ListenAddrs()...)
	cfg.SASL = kafka.SASL{Mechanism: "OAUTHBEARER", TokenFile: file}
	producer, _ := newProducer(t, cfg)
	require.NoError(t, producer.Start(t.Context()))
	require.Eventually(t, func() bool {
		err := producer.Ready()
		return err != nil && strings.Contains(err.Error(), "SASL Authentication failed")
	}, patience, 10*time.Millisecond)
	writeFile(t, file, "new")
	require.Eventually(t, func() bool { return producer.Ready() == nil }, patience, 10*time.Millisecond)
}

// The client renews an expiring session with a new token. The broker ends the connection of a client that comes with
// the old token.
func TestATokenOfARealBrokerIsRenewedBeforeItExpires(t *testing.T) {
	t.Parallel()
	if os.Getenv("CAPTURE_TEST_KAFKA_SASL_BROKERS") == "" {
		t.Skip("kfake has no such login")
	}
	brokers, ca := secured(t, "OAUTHBEARER")
	const life = 5 * time.Second
	file := filepath.Join(t.TempDir(), "token")
	// The file always holds a token that lives for long enough, however long a login takes.
	renew := func() {
		now, next := time.Now(), file+".new"
		err := os.WriteFile(next, []byte(webToken(now, now.Add(life))), 0o600)
		if err := errors.Join(err, os.Rename(next, file)); err != nil {
			t.Error(err)
		}
	}
	renew()
	ended := make(chan struct{})
	var renewing sync.WaitGroup
	renewing.Go(func() {
		ticker := time.NewTicker(life / 50)
		defer ticker.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
				renew()
			}
		}
	})
	t.Cleanup(func() {
		close(ended)
		renewing.Wait()
	})
	cfg := config(brokers...)
	cfg.TLS = kafka.TLS{Enabled: true, CAFile: ca}
	cfg.SASL = kafka.SASL{Mechanism: "OAUTHBEARER", TokenFile: file}
	producer, _ := start(t, cfg)
	written := 0
	for n, first := 0, time.Now(); time.Since(first) < 3*life; n++ {
		send(producer, messages(cfg.Topics.Events, n, 1)).requireAcknowledged(t)
		written++
	}
	require.Len(t, consume(t, cluster(t), cfg.Topics.Events, written), written)
}

func TestATokenIsSharedUntilItIsWorn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetched := 0
		tokens := kafka.NewTokens(func(context.Context) (string, time.Time, error) {
			fetched++
			return fmt.Sprint("token ", fetched), time.Now().Add(100 * time.Minute), nil
		})
		var logins sync.WaitGroup
		for range 20 {
			logins.Go(func() {
				token, err := tokens.Token()
				require.NoError(t, err)
				require.Equal(t, "token 1", token.Token)
			})
		}
		logins.Wait()
		time.Sleep(79 * time.Minute)
		token, err := tokens.Token()
		require.NoError(t, err)
		require.Equal(t, "token 1", token.Token)
		// sarama logs in again after 85 percent of the time at the earliest.
		time.Sleep(6 * time.Minute)
		token, err = tokens.Token()
		require.NoError(t, err)
		require.Equal(t, "token 2", token.Token)
		require.Equal(t, 2, fetched)
	})
}

func TestATokenThatCannotBeRenewedIsUsedToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetched, broken := 0, error(nil)
		tokens := kafka.NewTokens(func(context.Context) (string, time.Time, error) {
			fetched++
			return "good", time.Now().Add(10 * time.Minute), broken
		})
		_, err := tokens.Token()
		require.NoError(t, err)
		broken = errors.New("the token server is away")
		time.Sleep(9 * time.Minute)
		token, err := tokens.Token()
		require.NoError(t, err)
		require.Equal(t, "good", token.Token)
		time.Sleep(2 * time.Minute)
		for range 10 {
			_, err = tokens.Token()
			require.ErrorIs(t, err, broken)
		}
		require.Equal(t, 3, fetched, "logins at the same time share a failure")
		broken = nil
		time.Sleep(time.Second)
		_, err = tokens.Token()
		require.NoError(t, err)
	})
}

func TestWhatIsWrongWithATokenIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		writeFile(t, path, content)
		return path
	}
	expired := webToken(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	from := func(file string) kafka.SASL { return kafka.SASL{TokenFile: file} }
	by := func(command ...string) kafka.SASL { return kafka.SASL{TokenCommand: command} }
	const inCommand = "kafka.sasl.token_command: "
	for name, test := range map[string]struct {
		sasl kafka.SASL
		says string
	}{
		"no file":         {from(filepath.Join(dir, "none")), "kafka.sasl.token_file: open "},
		"empty file":      {from(file("empty", " \n")), "kafka.sasl.token_file: " + dir + "/empty: no token"},
		"two lines":       {from(file("two", "a\nb\n")), "one word of printable ASCII characters"},
		"no command":      {by("no-such-command"), inCommand + "exec: "},
		"failing command": {by("sh", "-c", "echo no ticket >&2; exit 3"), inCommand + "sh: exit status 3: no ticket"},
		"command with secrets": {
			by("sh", "-c", "echo secret=$3, $2, $1 >&2; exit 3", "sh", "--quiet", "hunter2", "other"),
			inCommand + "sh: exit status 3: secret=****** ******, --quiet",
		},
		"silent command":   {by("true"), inCommand + "true: no token"},
		"endless command":  {by("yes"), inCommand + "yes: "},
		"hanging command":  {by("sleep", "60"), inCommand + "sleep: no token within kafka.connect_timeout"},
		"an expired token": {by("echo", expired), "kafka.sasl: the new token has expired at "},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config("127.0.0.1:9092")
			if name == "hanging command" {
				cfg.ConnectTimeout = 200 * time.Millisecond
			}
			cfg.SASL = test.sasl
			cfg.SASL.Mechanism = "OAUTHBEARER"
			require.NoError(t, cfg.Validate())
			client, err := kafka.ClientConfig(cfg)
			if err == nil {
				_, err = client.Net.SASL.TokenProvider.Token()
			}
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), expired)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestACommandRunsAgainWhenItsTokenIsWorn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		life  time.Duration // 0: the token does not tell it
		again bool
	}{
		"a minute without a time": {0, false},
		"an hour":                 {time.Hour, false},
		"a few seconds":           {4 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			log, expected := filepath.Join(t.TempDir(), "log"), "opaque"
			if test.life > 0 {
				expected = webToken(time.Now(), time.Now().Add(test.life))
			}
			cfg := config("127.0.0.1:9092")
			command := []string{"sh", "-c", "echo run >> " + log + "; echo " + expected}
			cfg.SASL = kafka.SASL{Mechanism: "OAUTHBEARER", TokenCommand: command}
			client, err := kafka.ClientConfig(cfg)
			require.NoError(t, err)
			runs := func() int {
				content, err := os.ReadFile(log)
				require.NoError(t, err)
				return strings.Count(string(content), "run")
			}
			for range 3 {
				token, err := client.Net.SASL.TokenProvider.Token()
				require.NoError(t, err)
				require.Equal(t, expected, token.Token)
			}
			if !test.again {
				require.Equal(t, 1, runs())
				return
			}
			require.Eventually(t, func() bool {
				_, _ = client.Net.SASL.TokenProvider.Token()
				return runs() > 1
			}, patience, 10*time.Millisecond)
		})
	}
}

func TestAWSSignsTheTokenForMSK(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	t.Setenv("AWS_SESSION_TOKEN", "")
	cfg := config("127.0.0.1:9098")
	cfg.TLS.Enabled = true
	cfg.SASL = kafka.SASL{Mechanism: "AWS_MSK_IAM", AWSRegion: "eu-central-1"}
	require.NoError(t, cfg.Validate())
	client, err := kafka.ClientConfig(cfg)
	require.NoError(t, err)
	require.NoError(t, client.Validate())
	require.Equal(t, sarama.SASLMechanism("OAUTHBEARER"), client.Net.SASL.Mechanism)
	token, err := client.Net.SASL.TokenProvider.Token()
	require.NoError(t, err)
	again, err := client.Net.SASL.TokenProvider.Token()
	require.NoError(t, err)
	require.Equal(t, token, again)

	text, err := base64.RawURLEncoding.DecodeString(token.Token)
	require.NoError(t, err)
	require.NotContains(t, string(text), "hunter2")
	signed, err := url.Parse(string(text))
	require.NoError(t, err)
	require.Equal(t, "kafka.eu-central-1.amazonaws.com", signed.Host)
	require.Equal(t, "kafka-cluster:Connect", signed.Query().Get("Action"))
	require.True(t, strings.HasPrefix(signed.Query().Get("X-Amz-Credential"), "AKIDEXAMPLE/"))
}

func TestThePasswordMayComeFromAFile(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			brokers, ca := secured(t, mechanism)
			file := filepath.Join(t.TempDir(), "password")
			writeFile(t, file, "secret\r\n")
			cfg := config(brokers...)
			cfg.TLS = kafka.TLS{Enabled: true, CAFile: ca}
			cfg.SASL = kafka.SASL{Mechanism: mechanism, Username: "capture", PasswordFile: file}
			require.NoError(t, cfg.Validate())
			start(t, cfg)
		})
	}
	cfg := config("127.0.0.1:9092")
	cfg.SASL = kafka.SASL{Mechanism: "PLAIN", Username: "capture", PasswordFile: "no/such/file"}
	_, err := kafka.ClientConfig(cfg)
	require.ErrorContains(t, err, "kafka.sasl.password_file: open no/such/file")
	cfg.SASL.PasswordFile = filepath.Join(t.TempDir(), "empty")
	writeFile(t, cfg.SASL.PasswordFile, "\n")
	_, err = kafka.ClientConfig(cfg)
	require.ErrorContains(t, err, "is empty")
}

func TestAChangedFileIsNoticedOnce(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	writeFile(t, one, "1")
	at := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(one, at, at))
	watch := kafka.NewFileWatch([]string{one, two})
	changed := func(why string) {
		t.Helper()
		require.True(t, watch.Changed(), why)
		require.False(t, watch.Changed(), "%s: a second time", why)
	}
	require.False(t, watch.Changed())

	writeFile(t, two, "2")
	changed("appeared")
	writeFile(t, one, "x")
	require.NoError(t, os.Chtimes(one, at, at))
	changed("same size and time")
	require.NoError(t, os.Chtimes(one, time.Now(), time.Now()))
	require.False(t, watch.Changed(), "only touched")
	renamed := filepath.Join(dir, "new")
	writeFile(t, renamed, "y")
	require.NoError(t, os.Rename(renamed, two))
	changed("replaced")
	require.NoError(t, os.Remove(two))
	changed("vanished")
}

// Kubernetes mounts a secret as links to ..data/NAME, where ..data is a link to a directory, and swaps ..data.
func TestASwappedKubernetesSecretIsNoticed(t *testing.T) {
	dir := t.TempDir()
	publish := func(version, content string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		writeFile(t, filepath.Join(dir, version, "tls.crt"), content)
		require.NoError(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	publish("..1", "old")
	mounted := filepath.Join(dir, "tls.crt")
	require.NoError(t, os.Symlink(filepath.Join("..data", "tls.crt"), mounted))
	watch := kafka.NewFileWatch([]string{mounted})
	require.False(t, watch.Changed())
	publish("..2", "old")
	require.False(t, watch.Changed(), "published again as it was")
	publish("..3", "new")
	require.True(t, watch.Changed())
	require.False(t, watch.Changed())
}

// The broker's password and authority are replaced while the service runs. The service's files follow one by one, and
// the first is only half written for a moment. The new broker lets the service in only when all files are complete.
func TestReplacedFilesMakeANewConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	writeFile(t, password, "old")
	_, oldCA := authority(t)
	ca := filepath.Join(dir, "ca.pem")
	pem, err := os.ReadFile(oldCA)
	require.NoError(t, err)
	writeFile(t, ca, string(pem))

	certificate, newCA := authority(t)
	broker := fake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}}),
		kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "capture", "new"))
	cfg := config(broker.ListenAddrs()...)
	cfg.ConnectTimeout = time.Second
	cfg.TLS = kafka.TLS{Enabled: true, CAFile: ca}
	cfg.SASL = kafka.SASL{Mechanism: "SCRAM-SHA-512", Username: "capture", PasswordFile: password}
	require.ElementsMatch(t, []string{ca, password}, cfg.CredentialFiles())
	watch := kafka.NewFileWatch(cfg.CredentialFiles())
	reach := func() error {
		client, err := kafka.ClientConfig(cfg)
		require.NoError(t, err)
		reached, err := sarama.NewClient(cfg.Brokers, client)
		require.NoError(t, err)
		return errors.Join(reached.RefreshMetadata(), reached.Close())
	}
	require.Error(t, reach())

	pem, err = os.ReadFile(newCA)
	require.NoError(t, err)
	writeFile(t, ca, string(pem[:len(pem)/2]))
	require.True(t, watch.Changed())
	_, err = kafka.ClientConfig(cfg)
	require.ErrorContains(t, err, "kafka.tls.ca_file: no certificate in "+ca)

	writeFile(t, ca, string(pem))
	require.True(t, watch.Changed())
	require.Error(t, reach(), "the password is still the old one")

	writeFile(t, password, "new")
	require.True(t, watch.Changed())
	require.NoError(t, reach())
}

func BenchmarkFileWatch(b *testing.B) {
	dir := b.TempDir()
	var files []string
	for i := range 4 {
		file := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(file, []byte(strings.Repeat("certificate ", 400)), 0o600); err != nil {
			b.Fatal(err)
		}
		files = append(files, file)
	}
	watch := kafka.NewFileWatch(files)
	var changes atomic.Int64
	for b.Loop() {
		if watch.Changed() {
			changes.Add(1)
		}
	}
	if changes.Load() > 0 {
		b.Fatal("nothing has changed")
	}
}

// A changed file gives a running producer another connection. No message is lost by that or comes twice.
func TestAChangedPasswordGivesARunningProducerAnotherConnection(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	writeFile(t, file, "first")
	broker := fake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "capture", "first"))
	cfg := config(broker.ListenAddrs()...)
	cfg.SASL = kafka.SASL{Mechanism: "PLAIN", Username: "capture", PasswordFile: file}
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	core, logs := observer.New(zap.InfoLevel)
	producer, err := kafka.NewProducer(cfg, bootstrap, zap.New(core), tally.NoopScope)
	require.NoError(t, err)
	require.NoError(t, producer.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, producer.Stop(context.Background())) })
	require.Eventually(t, func() bool { return producer.Ready() == nil }, patience, 10*time.Millisecond)

	n := 0
	more := func() bool {
		send(producer, messages(cfg.Topics.Events, n, 10)).requireAcknowledged(t)
		n += 10
		return logs.FilterMessageSnippet("connected to Kafka anew").Len() > 0
	}
	require.False(t, more())
	writeFile(t, file, "first\n") // the same password in a file that has changed
	require.Eventually(t, more, patience, time.Millisecond)
	require.True(t, more(), "and goes on")
	require.Empty(t, logs.FilterMessageSnippet("cannot be reached").All())
	sasl := kgo.SASL(login.Auth{User: "capture", Pass: "first"}.AsMechanism())
	records := consume(t, broker.ListenAddrs(), cfg.Topics.Events, n, sasl)
	for i := range records {
		require.Equal(t, strconv.Itoa(i), string(records[i].Value))
	}
}

// A changed configuration gives a running producer another login. If Kafka refuses the login, the producer keeps its
// connection.
func TestAChangedLoginGivesARunningProducerAnotherConnection(t *testing.T) {
	t.Parallel()
	broker := fake(t, kfake.EnableSASL(),
		kfake.Superuser("PLAIN", "capture", "first"), kfake.Superuser("PLAIN", "other", "second"))
	cfg := config(broker.ListenAddrs()...)
	cfg.SASL = kafka.SASL{Mechanism: "PLAIN", Username: "capture", Password: "first"}
	bootstrap, err := kafka.NewBootstrap(cfg)
	require.NoError(t, err)
	core, logs := observer.New(zap.InfoLevel)
	producer, err := kafka.NewProducer(cfg, bootstrap, zap.New(core), tally.NoopScope)
	require.NoError(t, err)
	require.NoError(t, producer.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, producer.Stop(context.Background())) })
	require.Eventually(t, func() bool { return producer.Ready() == nil }, patience, 10*time.Millisecond)
	send(producer, messages(cfg.Topics.Events, 0, 10)).requireAcknowledged(t)

	lines := func(text string) func() bool {
		return func() bool { return logs.FilterMessageSnippet(text).Len() > 0 }
	}
	producer.SetLogin(kafka.TLS{}, kafka.SASL{Mechanism: "PLAIN", Username: "other", Password: "wrong"})
	require.Eventually(t, lines("Kafka cannot be reached with them"), patience, 10*time.Millisecond)
	send(producer, messages(cfg.Topics.Events, 10, 10)).requireAcknowledged(t)
	require.False(t, lines("connected to Kafka anew")())

	producer.SetLogin(kafka.TLS{}, kafka.SASL{Mechanism: "PLAIN", Username: "other", Password: "second"})
	require.Eventually(t, lines("connected to Kafka anew"), patience, 10*time.Millisecond)
	send(producer, messages(cfg.Topics.Events, 20, 10)).requireAcknowledged(t)
	sasl := kgo.SASL(login.Auth{User: "capture", Pass: "first"}.AsMechanism())
	consume(t, broker.ListenAddrs(), cfg.Topics.Events, 30, sasl)
}
