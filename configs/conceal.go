package configs

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Conceal returns a message about a configured text without the secrets that the text may hold: the user and password
// of a URL or an address, and the query of a URL. The text may be a list with commas. A password in a place where it
// does not belong is a fault, and the message about the fault must not show it.
func Conceal(message, text string) string {
	return concealAll(message, secretsInList(text))
}

// secretsInList returns the parts of the items of a list that may be secret, and of the list as a whole.
func secretsInList(text string) []string {
	secrets := secretsIn(text)
	items := splitList(text)
	// A password with a comma in it has been cut in two.
	last := len(items) - 1
	for last >= 0 && !strings.Contains(items[last], "@") {
		last--
	}
	secrets = append(secrets, items[:max(last, 0)]...)
	for _, item := range items {
		secrets = append(secrets, secretsIn(item)...)
	}
	return secrets
}

// secretsIn returns the parts of a text that may be secret.
func secretsIn(text string) (secrets []string) {
	scheme, rest, isURL := strings.Cut(text, "://")
	if !isURL {
		scheme, rest = "", text
	}
	// A password may hold any character, even an @.
	if at := strings.LastIndexByte(rest, '@'); at > 0 {
		secrets = append(secrets, rest[:at])
		rest = rest[at+1:]
	}
	for _, named := range withName.FindAllStringSubmatch(text, -1) {
		secrets = append(secrets, named[1])
	}
	if query := strings.IndexAny(rest, "?#"); isURL && scheme != "" && query >= 0 && query+1 < len(rest) {
		secrets = append(secrets, rest[query+1:])
		for pair := range strings.SplitSeq(rest[query+1:], "&") {
			_, value, _ := strings.Cut(pair, "=")
			secrets = append(secrets, value)
		}
	}
	return secrets
}

// concealAll masks the secrets in a message. It may sort them.
func concealAll(message string, secrets []string) string {
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // a short one may be part of a long one
	for _, secret := range secrets {
		message = conceal(message, secret)
	}
	return message
}

// shortestSecret is how many bytes a secret has at least, unless it is a user and a password.
const shortestSecret = 4

// conceal masks a secret in a message that quotes it in one way or another.
func conceal(message, secret string) string {
	if len(secret) < shortestSecret && !strings.Contains(secret, ":") {
		return message // it would be found in every word
	}
	quoted := strconv.Quote(secret)
	return strings.ReplaceAll(strings.ReplaceAll(message, secret, masked), quoted[1:len(quoted)-1], masked)
}

// secretsOf returns what a message about a key may not show of the value that the key was given: a string, or a
// []string for a list.
func (k *key) secretsOf(value any) (secrets []string) {
	text, isText := value.(string)
	if _, is := k.value.Interface().(Secret); is {
		return append(secrets, text)
	}
	if isText {
		return secretsInList(text)
	}
	items, _ := value.([]string)
	for _, item := range items {
		secrets = append(secrets, secretsIn(item)...)
	}
	return secrets
}

// withName matches a secret with its name, as in a connection string or in JSON.
var withName = regexp.MustCompile(
	`(?i)(?:password|passwd|pwd|secret|token|key|credentials?)(?:=["']?|["']\s*:\s*["'])([^\s"';&]+)`)

// ConcealText returns a text of another program without the secrets in it that can be told by their form: those with a
// name, as in password=..., bearer tokens and JSON Web Tokens, logins and queries of URLs, and the words given.
func ConcealText(text string, words ...string) string {
	secrets := slices.Concat(words, token.FindAllString(text, -1))
	for word := range strings.FieldsSeq(text) {
		if strings.Contains(word, "://") {
			secrets = append(secrets, secretsIn(strings.Trim(word, `"'()<>[]{},;`))...)
		}
	}
	for _, named := range withName.FindAllStringSubmatch(text, -1) {
		secrets = append(secrets, named[1])
	}
	return concealAll(text, secrets)
}

// token matches a JSON Web Token, or the beginning of one, and what an Authorization header holds.
var token = regexp.MustCompile(`\beyJ[\w.=-]{8,}|(?i:bearer|basic)\s+[\w.~+/=-]{8,}`)

// withSecret matches a URL with a login or a query, and an address with a login. A user of a project, such as
// phc_token:me@example.com, looks like the latter without a port.
var withSecret = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*://.*[@?#]|@[^@:/]+:[0-9]+$`)

// shown returns a value as it is printed. A valid configuration of the stock build has no secret in such a place.
func shown(text string) string {
	if withSecret.MatchString(text) {
		return concealAll(text, secretsIn(text))
	}
	return text
}
