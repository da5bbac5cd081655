package posthogenv

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/opencapture/capture/configs"
)

// conversion turns a variable's value into the value of a key: a string, bool, int64 or []string, or nil if there is
// nothing to write. Its error continues a message that begins with the variable's name. With an error the value is of
// no use.
type conversion func(value string) (any, error)

func text(value string) (any, error) { return value, nil }

// always is the conversion of a setting that is written without a variable.
func always(value any) conversion { return func(string) (any, error) { return value, nil } }

func oneOf(allowed ...string) conversion {
	return func(value string) (any, error) {
		lower := strings.ToLower(value)
		if !slices.Contains(allowed, lower) {
			return nil, fmt.Errorf("must be one of %s, got %q", strings.Join(allowed, ", "), value)
		}
		return lower, nil
	}
}

func boolean(value string) (any, error) {
	lower, err := oneOf("true", "false")(value)
	return lower == "true", err
}

func logLevel(value string) (any, error) {
	level, err := oneOf("trace", "debug", "info", "warn", "error", "off")(value)
	switch level {
	case "trace":
		return "debug", nil
	case "off":
		return "error", nil
	}
	return level, err
}

// groups maps each mode to the group of routes that it serves.
var groups = map[string]string{"events": "analytics", "import": "analytics", "recordings": "recordings", "ai": "ai"}

// served reads which group of routes a deployment serves.
func served(value string) (any, error) {
	group, found := groups[strings.ToLower(value)]
	if !found {
		return nil, fmt.Errorf("must be one of events, recordings, ai, import, got %q", value)
	}
	return []string{group}, nil
}

// historicalOnly reads whether the mode is import, which takes only migrations. It ignores an unknown mode, since
// served reports that.
func historicalOnly(value string) (any, error) {
	if strings.EqualFold(value, "import") {
		return true, nil
	}
	return nil, nil
}

// rerouting reads whether events older than so many days are historical.
func rerouting(days string) conversion {
	return func(value string) (any, error) {
		on, err := boolean(value)
		if err != nil || on != true {
			return "0s", err
		}
		age, err := whole(cmp.Or(days, "1"), "days", 1, 36_500)
		if err != nil {
			return nil, fmt.Errorf("HISTORICAL_REROUTING_THRESHOLD_DAYS %w", err)
		}
		return fmt.Sprintf("%dh", age*24), nil
	}
}

// overflowRate reads how many events of a user pass in a second, and at once.
func overflowRate(env map[string]string) conversion {
	return func(value string) (any, error) {
		on, err := boolean(value)
		if err != nil || on != true {
			return nil, err
		}
		rate, err := whole(cmp.Or(env["OVERFLOW_PER_SECOND_LIMIT"], "100"), "events", 1, mostRate)
		if err != nil {
			return nil, inside("OVERFLOW_PER_SECOND_LIMIT", err)
		}
		burst, err := whole(cmp.Or(env["OVERFLOW_BURST_LIMIT"], "1000"), "events", 1, mostRate)
		if err != nil {
			return nil, inside("OVERFLOW_BURST_LIMIT", err)
		}
		return []string{fmt.Sprintf("events=%d/s burst=%d", rate, burst)}, nil
	}
}

// mostRate is the largest number of events of a rate.
const mostRate = 100_000_000

// inside says which variable an error is about, which continues a message about another one.
func inside(name string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %w", name, err)
	}
	return nil
}

func whole(value, unit string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("must be a whole number of %s from %d to %d, got %q", unit, least, most, value)
	}
	return n, nil
}

func milliseconds(least int64) conversion {
	return func(value string) (any, error) {
		n, err := whole(value, "milliseconds", least, math.MaxInt32)
		if n%1000 == 0 {
			return fmt.Sprintf("%ds", n/1000), err
		}
		return fmt.Sprintf("%dms", n), err
	}
}

// seconds reads a number of seconds that a key takes.
func seconds(most int64) conversion {
	return func(value string) (any, error) {
		n, err := whole(value, "seconds", 1, most)
		return fmt.Sprintf("%ds", n), err
	}
}

// lookupTimeout reads a time in milliseconds of at most a minute.
func lookupTimeout(value string) (any, error) {
	if n, err := whole(value, "milliseconds", 1, 60_000); err != nil {
		return n, err
	}
	return milliseconds(1)(value)
}

func entries(value string) (any, error) {
	n, err := whole(value, "entries", 1, 10_000_000)
	return n, err
}

// validationMode reads what becomes of tokens that PostHog does not know.
func validationMode(value string) (any, error) {
	mode, err := oneOf("off", "dry_run", "enforce")(value)
	switch mode {
	case "dry_run":
		return "known", nil
	case "enforce":
		return "strict", nil
	}
	return "open", err
}

func byteCount(least int64) conversion {
	return func(value string) (any, error) {
		n, err := whole(value, "bytes", least, math.MaxInt32)
		return size(n), err
	}
}

func mebibytes(value string) (any, error) {
	n, err := whole(value, "MiB", 1, math.MaxInt32)
	return size(n << 20), err
}

// size writes a whole number of KiB or more with its unit, and any other size as a plain number.
func size(n int64) any {
	if n == 0 || n%int64(configs.KiB) != 0 {
		return n
	}
	return configs.ByteSize(n).String()
}

func checkAddress(value string) error {
	host, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || !configs.IsHostName(host) {
		return fmt.Errorf("must be host:port, got %q", value)
	}
	return nil
}

func address(value string) (any, error) { return value, checkAddress(value) }

// split cuts a list at its commas and drops the blanks around and between the items.
func split(value string) []string {
	var items []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// brokers adds the default port of librdkafka to a host without a port.
func brokers(value string) (any, error) {
	list := split(value)
	for i, broker := range list {
		if !strings.Contains(broker, ":") {
			list[i] += ":9092"
		}
		if err := checkAddress(list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// securityProtocol reads whether connections are encrypted. The notes tell about a login.
func securityProtocol(value string) (any, error) {
	protocol, err := oneOf("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")(value)
	return protocol == "ssl" || protocol == "sasl_ssl", err
}

// rules reads the tokens, and the users in the form token:distinct_id, that a rule concerns.
func rules(value string) (any, error) {
	list := split(value)
	for i, who := range list {
		token, distinctID, one := strings.Cut(who, ":")
		if token == "" || one && distinctID == "" {
			return nil, fmt.Errorf("must be a list of token or token:distinct_id, got %q in it", who)
		}
		if field, _, named := strings.Cut(distinctID, "="); named && slices.Contains(ruleFields, field) {
			list[i] = token + ":distinct_id=" + distinctID // here it would be a rule about something else
		}
	}
	return list, nil
}

// ruleFields are the words behind which an entry of routing.drop names something.
var ruleFields = []string{"distinct_id", "event", "session", "uuid"}

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func topic(value string) (any, error) {
	if !topicName.MatchString(value) || value == "." || value == ".." {
		return nil, fmt.Errorf("must be the name of a topic: 1 to 249 letters, digits, dots, underscores or hyphens, "+
			"got %q", value)
	}
	return value, nil
}

// redisURL is what an address of Redis says.
type redisURL struct {
	address, username string
	database          int64
	tls, password     bool
}

// readRedisURL reads an address such as redis://user:password@host:port/0, or rediss:// for TLS. Its errors show
// nothing of it, since a password may be anywhere in a text that is no address.
func readRedisURL(value string) (redisURL, error) {
	const want = "must be such as redis://host:6379/0, or rediss:// for TLS"
	parsed, err := url.Parse(value)
	if err != nil || parsed.Scheme != "redis" && parsed.Scheme != "rediss" || parsed.Hostname() == "" {
		return redisURL{}, errors.New(want)
	}
	r := redisURL{address: net.JoinHostPort(parsed.Hostname(), cmp.Or(parsed.Port(), "6379"))}
	r.username, r.tls = parsed.User.Username(), parsed.Scheme == "rediss"
	_, r.password = parsed.User.Password()
	if database := strings.Trim(parsed.Path, "/"); database != "" {
		if r.database, err = strconv.ParseInt(database, 10, 32); err != nil || r.database < 0 {
			return redisURL{}, errors.New(want)
		}
	}
	if checkAddress(r.address) != nil {
		return redisURL{}, errors.New(want)
	}
	return r, nil
}

// redis reads a part of an address of Redis.
func redis(part func(redisURL) any) conversion {
	return func(value string) (any, error) {
		r, err := readRedisURL(value)
		if err != nil {
			return nil, err
		}
		return part(r), nil
	}
}

// unlessZero returns the value, or nil for one that need not be written.
func unlessZero[T comparable](value T) any {
	var zero T
	if value == zero {
		return nil
	}
	return value
}

// redisTimeout reads how long a read may take. 0 is no limit there, and the default here.
func redisTimeout(value string) (any, error) {
	if n, err := whole(value, "milliseconds", 0, 60_000); err != nil || n == 0 {
		return nil, err
	}
	return milliseconds(1)(value)
}
