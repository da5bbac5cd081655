package posthogenv

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/opencapture/capture/configs"
)

// Translate turns an environment, in the form of os.Environ, into a configuration file. It writes only keys of the
// build, in the order of the build's reference, and says in a comment what it would have written for other keys. It
// reports all values that make no sense at once, as a *configs.FaultsError with the names of the variables.
//
// Translate passes over variables that do not look like PostHog's, the variables of this service, and those that
// Kubernetes sets for services.
func Translate(environ, keys []string) ([]byte, error) {
	t := &translation{env: parse(environ), keys: keys, values: map[string]given{}}
	t.settings = settings(t.env)
	t.translate()
	t.ownRates = t.thresholds()
	if err := t.faults.Err(); err != nil {
		return nil, err
	}
	return t.write()
}

// translation is the translation of one environment.
type translation struct {
	env      map[string]string
	keys     []string
	settings []setting
	// values are the values of keys, also of keys that the build lacks.
	values map[string]given
	// conflicts are sentences about older names that do not count.
	conflicts []string
	// ownRates are sentences about thresholds of single projects and users.
	ownRates []string
	faults   configs.Faults
}

// given is the value of a key, and the variable that gave it.
type given struct {
	value  any
	name   string
	origin string
}

// notVariables matches names that look like PostHog's and are none: those of this service, and those that Kubernetes
// puts into the environment of every pod beside a service, such as KAFKA_PORT_9092_TCP_ADDR.
var notVariables = regexp.MustCompile(`^(CAPTURE_TEST_.*|CAPTURE_[A-Z0-9_]*[A-Z0-9]__[A-Z0-9_]+|` +
	`[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?))$`)

// parse keeps the variables that have a value. Compose files give an empty value to a variable that is left to its
// default.
func parse(environ []string) map[string]string {
	env := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if value = strings.TrimSpace(value); value != "" && !notVariables.MatchString(name) {
			env[name] = value
		}
	}
	return env
}

func (t *translation) translate() {
	faulty := map[string]bool{}
	for _, setting := range t.settings {
		before, decided := t.values[setting.key]
		if setting.name == "" {
			if !decided {
				value, _ := setting.convert("")
				t.values[setting.key] = given{value: value, origin: setting.note}
			}
			continue
		}
		raw, found := t.env[setting.name]
		if !found || faulty[setting.name] {
			continue
		}
		value, err := setting.convert(raw)
		switch {
		case err != nil:
			faulty[setting.name] = true
			t.faults.Addf(setting.name, "%s", configs.Conceal(err.Error(), raw))
		case value == nil:
		case !decided:
			origin := setting.name
			if show(value) != raw {
				origin = t.masked(setting.name)
			}
			t.values[setting.key] = given{value: value, name: setting.name, origin: origin}
		case show(before.value) != show(value):
			t.conflicts = append(t.conflicts,
				fmt.Sprintf("%s is what %s says. %s does not count: it is the older name.",
					setting.key, before.name, t.masked(setting.name)))
		}
	}
}

// show returns a value as text.
func show(value any) string {
	if list, ok := value.([]string); ok {
		return strings.Join(list, ",")
	}
	return fmt.Sprint(value)
}

// printable quotes a value that would otherwise end the comment that it stands in.
func printable(value string) string {
	if isPrintable(value) {
		return value
	}
	return fmt.Sprintf("%q", value)
}

func isPrintable(value string) bool {
	return !strings.ContainsFunc(value,
		func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) })
}

// secret matches a variable, as NAME=value, that may hold a secret. An address with an @ holds a login.
var secret = regexp.MustCompile(`(?i)secret|passw|credential|private|access_?key|api_?key|token=|@`)

// masked returns a variable as NAME=value, and masks a value that may be a secret.
func (t *translation) masked(name string) string {
	line := name + "=" + printable(t.env[name])
	if secret.MatchString(line) {
		return name + "=******"
	}
	return line
}

// names returns the names of the variables in alphabetical order.
func (t *translation) names() []string { return slices.Sorted(maps.Keys(t.env)) }

func (t *translation) isSetting(name string) bool {
	return slices.ContainsFunc(t.settings, func(setting setting) bool { return setting.name == name })
}

// missing lists the keys that the build lacks, with their values and the module that has them.
func (t *translation) missing() []string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(t.values)) {
		if slices.Contains(t.keys, key) {
			continue
		}
		section, _, _ := strings.Cut(key, ".")
		advice := "include the module " + section
		if slices.ContainsFunc(t.keys, func(known string) bool { return strings.HasPrefix(known, section+".") }) {
			advice = "the module " + section + " of this build has no such key"
		}
		given := t.values[key]
		lines = append(lines, fmt.Sprintf("%s: %s (%s): %s.", key, printable(show(given.value)), given.origin, advice))
	}
	return lines
}

// remarks returns the remarks about variables that became no key. With same it is about the variables that ask for what
// this service does in any case, without same about the others. Variables with the same remark share a line.
func (t *translation) remarks(same bool) []string {
	var notes []string
	variables := map[string][]string{}
	for _, name := range t.names() {
		remark, found := remarkOn(name)
		if !found || t.isSetting(name) || remark.isSame(t.env[name]) != same {
			continue
		}
		if len(variables[remark.note]) == 0 {
			notes = append(notes, remark.note)
		}
		variables[remark.note] = append(variables[remark.note], t.masked(name))
	}
	for i, note := range notes {
		notes[i] = strings.Join(variables[note], ", ") + ": " + note
	}
	return notes
}

// unknown lists the variables that look like PostHog's and are in neither table. It names them without their values,
// which may be secret.
func (t *translation) unknown() []string {
	var names []string
	for _, name := range t.names() {
		_, remarked := remarkOn(name)
		looks := slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		if looks && !remarked && !t.isSetting(name) {
			names = append(names, name)
		}
	}
	return names
}

// notes are sentences that an operator should read before this service takes over.
func (t *translation) notes() []string {
	notes := slices.Concat(t.conflicts, t.ownRates)
	if _, found := t.values["kafka.brokers"]; !found {
		notes = append(notes, "No variable names the brokers. Without kafka.brokers the service writes to a broker "+
			"of its own, inside the process.")
	}
	if t.values["kafka.tls.enabled"].value == true {
		notes = append(notes, "The brokers' certificates are verified here, which PostHog's capture does not do with "+
			"KAFKA_TLS: for an authority of your own, set kafka.tls.ca_file.")
	}
	if r, err := readRedisURL(t.env["REDIS_URL"]); err == nil && r.password {
		notes = append(notes, "The password of REDIS_URL is not written into the file: set "+
			"store.posthog.password_file, or store.posthog.password.")
	}
	if strings.HasPrefix(strings.ToLower(t.env["KAFKA_INGESTION_PRODUCER_SECURITY_PROTOCOL"]), "sasl") {
		notes = append(notes, "The brokers ask for a login: set kafka.sasl.mechanism and what it needs: username and "+
			"password, a token, or AWS's region.")
	}
	refused := slices.DeleteFunc(t.names(), func(name string) bool { return !strings.HasPrefix(name, "CAPTURE_") })
	if len(refused) > 0 {
		notes = append(notes, "The service does not start with CAPTURE_ variables that are not its own. "+
			"Take these out of its environment: "+strings.Join(refused, ", ")+".")
	}
	return append(notes, "Metrics are at /metrics of admin.listen, which is 127.0.0.1:8001 unless set: "+
		"Prometheus needs an address that it can reach, and a name that it uses for it in admin.hosts.")
}
