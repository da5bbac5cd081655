package kafka

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/aws/aws-msk-iam-sasl-signer-go/signer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/panics"
)

// credentialFiles returns the files that clientConfig reads, without the token file, which every login reads anew.
func (c Config) credentialFiles() []string {
	var files []string
	for _, file := range []string{c.TLS.CAFile, c.TLS.CertFile, c.TLS.KeyFile, c.SASL.PasswordFile} {
		if file != "" {
			files = append(files, file)
		}
	}
	return files
}

// fileWatch tells whether the content of files has changed. It is not safe for concurrent use.
type fileWatch struct {
	paths []string
	seen  [sha256.Size]byte // configs.FilesDigest
}

// newFileWatch remembers the present content of the files. A caller that reads the files only afterwards misses no
// change.
func newFileWatch(paths []string) *fileWatch {
	return &fileWatch{paths: paths, seen: configs.FilesDigest(paths)}
}

// Changed reports whether a file has changed, appeared or vanished since the last call.
func (w *fileWatch) Changed() bool {
	before := w.seen
	w.seen = configs.FilesDigest(w.paths)
	return w.seen != before
}

// password returns the password from the section itself or from the password file. The last line of the file may end
// with a line break.
func (s SASL) password() (string, error) {
	if s.PasswordFile == "" {
		return s.Password.Reveal(), nil
	}
	content, err := os.ReadFile(s.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("kafka.sasl.password_file: %w", err)
	}
	password := strings.TrimRight(string(content), "\r\n")
	if password == "" {
		return "", fmt.Errorf("kafka.sasl.password_file: %s is empty", s.PasswordFile)
	}
	return password, nil
}

// tokens returns the provider of the bearer tokens for the logins. It checks at once everything that can be checked
// without fetching a token.
func (s SASL) tokens(limit time.Duration) (sarama.AccessTokenProvider, error) {
	switch {
	case s.Mechanism == mechanismMSK:
		return &tokenCache{limit: limit, fetch: s.signToken}, nil
	case s.TokenFile != "":
		file := tokenFile(s.TokenFile)
		if _, err := file.Token(); err != nil {
			return nil, err
		}
		return file, nil
	default:
		if _, err := exec.LookPath(s.TokenCommand[0]); err != nil {
			return nil, fmt.Errorf("kafka.sasl.token_command: %w", err)
		}
		return &tokenCache{limit: limit, fetch: s.runTokenCommand}, nil
	}
}

// tokenFile is a file with a token. Another program replaces the file before the token expires. Every login reads the
// file.
type tokenFile string

var _ sarama.AccessTokenProvider = tokenFile("")

// Token implements sarama.AccessTokenProvider.
func (f tokenFile) Token() (*sarama.AccessToken, error) {
	content, err := os.ReadFile(string(f))
	if err != nil {
		return nil, fmt.Errorf("kafka.sasl.token_file: %w", err)
	}
	token, err := bearer(content)
	if err != nil {
		return nil, fmt.Errorf("kafka.sasl.token_file: %s: %w", f, err)
	}
	return &sarama.AccessToken{Token: token}, nil
}

// tokenCache keeps a token as long as it is valid, so that the logins to all brokers share it.
type tokenCache struct {
	// fetch returns a new token and when it expires.
	fetch func(context.Context) (token string, expires time.Time, err error)
	limit time.Duration // how long fetch may take

	mu      sync.Mutex
	token   string
	expires time.Time
	renew   time.Time // when fetch is called again
	err     error     // why the last fetch has failed; nil: it has not
}

var _ sarama.AccessTokenProvider = (*tokenCache)(nil)

const (
	// tokenWorn is the part of a token's life, in percent, after which the cache fetches a new one. A broker ends a
	// session when the session's token expires, and sarama logs in again when 85 to 95 percent of the session are over.
	// That login must get a new token. A login with the old token would be the first of many, each for a smaller part
	// of the token's remaining life.
	tokenWorn = 80
	// opaqueLife is how long the cache uses a token that does not say when it expires.
	opaqueLife = time.Minute
	// fetchPause is how long a failure counts, so that the logins to all brokers share it as well.
	fetchPause = time.Second
)

// Token implements sarama.AccessTokenProvider. While fetch yields no new token, Token returns the old one as long as
// that is valid.
func (c *tokenCache) Token() (*sarama.AccessToken, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !time.Now().Before(c.renew) {
		c.renewToken()
	}
	if c.token != "" && time.Now().Before(c.expires) {
		return &sarama.AccessToken{Token: c.token}, nil
	}
	return nil, c.err
}

func (c *tokenCache) renewToken() {
	ctx, cancel := context.WithTimeout(context.Background(), c.limit)
	defer cancel()
	var token string
	var expires time.Time
	err := panics.Catch(func() (err error) { // sarama asks in a goroutine of its own
		token, expires, err = c.fetch(ctx)
		return err
	})
	now := time.Now()
	if err == nil && !now.Before(expires) {
		err = fmt.Errorf("kafka.sasl: the new token has expired at %s already", expires.UTC().Format(time.RFC3339))
	}
	if err != nil {
		c.err, c.renew = err, now.Add(fetchPause)
		return
	}
	c.token, c.expires, c.err = token, expires, nil
	c.renew = now.Add(expires.Sub(now) / 100 * tokenWorn)
}

// signToken signs a token for Amazon MSK with the credentials that AWS's own tools would find: environment, profile,
// role.
func (s SASL) signToken(ctx context.Context) (string, time.Time, error) {
	token, expires, err := signer.GenerateAuthToken(ctx, s.AWSRegion)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("kafka.sasl: no token for AWS_MSK_IAM: %w", err)
	}
	return token, time.UnixMilli(expires), nil
}

const (
	largestToken = 64 << 10 // more than brokers take in a login
	shownError   = 200      // bytes of a failed command's own text in the error
)

// runTokenCommand runs the command without a shell, and returns what it prints as the token.
func (s SASL) runTokenCommand(ctx context.Context) (string, time.Time, error) {
	var printed, said output
	program, arguments := s.TokenCommand[0], s.TokenCommand[1:]
	command := exec.CommandContext(ctx, program, arguments...) //nolint:gosec // it is the operator's own command
	command.Stdout, command.Stderr = &printed, &said
	// A process that the command leaves behind keeps stdout and stderr open. Run does not wait for such a process.
	command.WaitDelay = time.Second
	err := command.Run()
	switch {
	case ctx.Err() != nil:
		err = errors.New("no token within kafka.connect_timeout")
	case err != nil && len(said) > 0:
		line, _, _ := strings.Cut(strings.TrimSpace(string(said)), "\n")
		line = configs.ConcealText(line, values(arguments)...) // a program may repeat what it was given
		err = fmt.Errorf("%w: %s", err, line[:min(len(line), shownError)])
	}
	var token string
	if err == nil {
		token, err = bearer(printed)
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("kafka.sasl.token_command: %s: %w", program, err)
	}
	expires, known := expiry(token)
	if !known {
		expires = time.Now().Add(opaqueLife)
	}
	return token, expires, nil
}

// values returns the arguments that are not flags.
func values(arguments []string) (values []string) {
	for _, argument := range arguments {
		if !strings.HasPrefix(argument, "-") {
			values = append(values, argument)
		}
	}
	return values
}

// output collects the output of a command. It refuses more bytes than a token can have.
type output []byte

func (o *output) Write(p []byte) (int, error) {
	if len(*o)+len(p) > largestToken {
		return 0, fmt.Errorf("more than %d bytes of output", largestToken)
	}
	*o = append(*o, p...)
	return len(p), nil
}

// bearer returns the token in a text that has only white space beside it. Characters that no token has would become
// part of the login's message (RFC 7628, section 3.1).
func bearer(text []byte) (string, error) {
	token := string(bytes.TrimSpace(text))
	if token == "" {
		return "", errors.New("no token")
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return "", errors.New("a token must be one word of printable ASCII characters")
		}
	}
	return token, nil
}

// expiry returns when a token expires, if it is a JSON Web Token that says so. It verifies nothing: the broker does.
func expiry(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Exp <= 0 {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(claims.Exp * 1000)), true
}
