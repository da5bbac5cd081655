package posthogenv

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/opencapture/capture/configs"
)

// The variables of PostHog's limit of users over all nodes.
const (
	globalOn        = "GLOBAL_RATE_LIMIT_ENABLED"
	globalDry       = "GLOBAL_RATE_LIMIT_DRY_RUN"
	globalMost      = "GLOBAL_RATE_LIMIT_TOKEN_DISTINCTID_THRESHOLD"
	globalWindow    = "GLOBAL_RATE_LIMIT_WINDOW_INTERVAL_SECS"
	globalOverrides = "GLOBAL_RATE_LIMIT_TOKEN_DISTINCTID_OVERRIDES_CSV"
	globalInRedis   = "GLOBAL_RATE_LIMIT_CUSTOM_THRESHOLD_KEY"
)

// globalRate reads how many events of a user pass in a window, over all nodes. A dry run limits nobody.
func globalRate(env map[string]string) conversion {
	return func(value string) (any, error) {
		on, err := boolean(value)
		if err != nil || on != true {
			return nil, err
		}
		if dry, err := boolean(cmp.Or(env[globalDry], "false")); err != nil || dry == true {
			return nil, inside(globalDry, err)
		}
		most, err := whole(cmp.Or(env[globalMost], "300000"), "events", 1, mostRate)
		if err != nil {
			return nil, inside(globalMost, err)
		}
		window, err := globalSeconds(env)
		if err != nil {
			return nil, inside(globalWindow, err)
		}
		return globalRates(most, window), nil
	}
}

func globalSeconds(env map[string]string) (int64, error) {
	return whole(cmp.Or(env[globalWindow], "60"), "seconds", 1, 3600)
}

// globalRates returns a threshold as rates. PostHog counts all events of a user together, and here each resource has a
// rate of its own.
func globalRates(most, window int64) []string {
	var rates []string
	for _, resource := range []string{"events", "exceptions", "ai", "surveys"} {
		rates = append(rates, fmt.Sprintf("%s=%d/h burst=%d", resource, most*3600/window, most))
	}
	return rates
}

// thresholds says what to do about thresholds of single projects and users, which are no settings of the service. It
// has nothing to say where the limit is off.
func (t *translation) thresholds() (notes []string) {
	if t.values["quota.user_rates"].name != globalOn {
		return nil
	}
	window, err := globalSeconds(t.env)
	if err != nil {
		return nil // globalRate has reported it
	}
	users := 0
	for _, entry := range split(t.env[globalOverrides]) {
		token, one, most, err := override(entry)
		switch {
		case err != nil:
			t.faults.Addf(globalOverrides, "%s", configs.Conceal(err.Error(), t.env[globalOverrides]))
		case one:
			users++
		default:
			notes = append(notes, fmt.Sprintf("A project has a threshold of its own: once the service runs, set it by "+
				"\"capture project set '%s' 'user_rates=%s'\".", printable(token),
				strings.Join(globalRates(most, window), ", ")))
		}
	}
	if users > 0 {
		notes = append(notes, fmt.Sprintf("%s has thresholds of single users, %d of them, which are LOST: here the "+
			"users of a project all have the same rate.", globalOverrides, users))
	}
	if key := t.env[globalInRedis]; key != "" {
		notes = append(notes, fmt.Sprintf("The thresholds that PostHog keeps in Redis under %s are NOT READ: give "+
			"their projects user_rates of their own.", printable(key)))
	}
	return notes
}

// override reads an entry of a list of thresholds. one is set if it concerns a single user of the project.
func override(entry string) (token string, one bool, most int64, err error) {
	at := strings.LastIndexByte(entry, '=')
	if at < 0 {
		return "", false, 0, errOverride
	}
	token, distinctID, one := strings.Cut(strings.TrimSpace(entry[:at]), ":")
	if token == "" || one && distinctID == "" || strings.Contains(token, "'") {
		return "", false, 0, errOverride
	}
	if most, err = whole(strings.TrimSpace(entry[at+1:]), "events", 1, mostRate); err != nil {
		return "", false, 0, fmt.Errorf("a threshold %w", err)
	}
	return token, one, most, nil
}

var errOverride = errors.New("must be a list of token=events or token:distinct_id=events")
