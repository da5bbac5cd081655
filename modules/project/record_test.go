package project_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/transport/route"
)

func parse(t testing.TB, fields store.Fields) project.Record {
	t.Helper()
	record, err := project.Parse(fields)
	require.NoError(t, err)
	return record
}

func TestARecordWithoutFieldsMaySendEverything(t *testing.T) {
	record := parse(t, nil)
	require.Equal(t, project.Record{}, record)
	require.Empty(t, record.Fields())
	for _, resource := range events.Resources() {
		require.True(t, record.Scopes.Has(events.ScopeOf(resource)))
	}
	require.True(t, record.Scopes.Has(events.ScopeHistorical))
	require.True(t, record.AllowsAddress("no address"))
	require.True(t, record.AllowsOrigin("https://anywhere.example"))
	require.True(t, record.AllowsGroup(route.Analytics))
	require.Equal(t, record, parse(t, store.Fields{"name": "", "quotas": " ", "origins": "\n"}), "nor has an empty one")
}

func TestEveryFieldIsReadAndWritten(t *testing.T) {
	fields := store.Fields{
		"id": "17", "name": "Café am Markt", "enabled": "false", "scopes": "events, ai, historical",
		"endpoints": "analytics, ai", "origins": "https://shop.example, https://*.shop.example, null",
		"require_origin": "true", "networks": "203.0.113.0/24, 2001:db8::/32",
		"zone": "Europe/Berlin", "quotas": "events=1000000/month, ai=5/minute", "rates": "events=100/s burst=5000",
		"user_rates": "events=10/m burst=1", "over": "reject", "whole": "true",
	}
	record := parse(t, fields)
	require.Equal(t, fields, record.Fields())
	require.Equal(t, "17", record.ID)
	require.True(t, record.Disabled)
	require.True(t, record.Scopes.Has(events.ScopeOf(events.ResourceAI)))
	require.False(t, record.Scopes.Has(events.ScopeOf(events.ResourceLogs)))
	require.Equal(t, []route.Group{route.Analytics, route.AI}, record.Endpoints)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		record.Networks)
	require.Equal(t, "Europe/Berlin", record.Limits.Zone.String())
	require.Equal(t, []events.Quota{
		{Resource: events.ResourceEvents, Period: events.PerMonth, Limit: 1e6},
		{Resource: events.ResourceAI, Period: events.PerMinute, Limit: 5},
	}, record.Limits.Quotas)
	require.Equal(t, []events.Rate{{Resource: events.ResourceEvents, Limit: 100, Per: time.Second, Burst: 5000}},
		record.Limits.Rates)
	require.Equal(t, []events.Rate{{Resource: events.ResourceEvents, Limit: 10, Per: time.Minute, Burst: 1}},
		record.Limits.UserRates)
	require.Equal(t, events.OverReject, record.Limits.Over)
	require.True(t, record.Limits.Whole)
}

// Limits of its own are what keeps the section "quota" from a project. None of them is not the same as no word.
func TestNoLimitIsNotTheSameAsNoLimitsOfItsOwn(t *testing.T) {
	require.Nil(t, parse(t, store.Fields{"id": "1"}).Limits)
	record := parse(t, store.Fields{"quotas": "none"})
	require.Equal(t, &events.Limits{Quotas: []events.Quota{}}, record.Limits)
	require.Equal(t, store.Fields{"quotas": "none"}, record.Fields())
}

func TestEveryFaultOfARecordIsReported(t *testing.T) {
	_, err := project.Parse(store.Fields{
		"nmae": "x", "colour\x1b": "red", "id": strings.Repeat("9", 65), "name": "a\nb", "enabled": "yes",
		"scopes": "historical", "endpoints": "analytic, web", "origins": "example.com, https://a,",
		"networks": "10.0.0.0/33", "require_origin": "1", "zone": "Mars/Base",
		"quotas": "events=1/day, events=2/day, x", "rates": "events=1",
		"user_rates": "events=1/s, events=2/m", "over": "ignore", "whole": "TRUE",
	})
	require.EqualError(t, err, strings.Join([]string{
		`"colour\x1b": is no field of a project: the fields are id, name, enabled, scopes, endpoints, origins, ` +
			`require_origin, networks, zone, quotas, rates, user_rates, over, whole`,
		`nmae: is no field of a project: did you mean name?`,
		`id: must have at most 64 bytes, got 65`,
		`name: must be text without control characters, got "a\nb"`,
		`enabled: must be true or false, got "yes"`,
		`scopes: must name the kinds of events of migrations as well, such as events, historical`,
		`endpoints: entry 1: must be a group of routes, got "analytic": did you mean analytics?`,
		`endpoints: entry 2: must be a group of routes, one of analytics, recordings, ai, logs, reports, setup, ` +
			`got "web"`,
		`origins: entry 1: must be a site such as https://example.com or https://*.example.com, got "example.com": ` +
			`the scheme is missing`,
		`origins: entry 3 is empty: separate the entries by one comma`,
		`require_origin: must be true or false, got "1"`,
		`networks: entry 1: must be a network such as 203.0.113.0/24 or an address, got "10.0.0.0/33"`,
		`quotas: entry 3: must be RESOURCE=NUMBER/TIME, got "x": a quota is such as events=1000000/month`,
		`rates: entry 1: must be RESOURCE=NUMBER/TIME, got "events=1": a rate is such as events=100/s or ` +
			`events=100/s burst=5000`,
		`whole: must be true or false, got "TRUE"`,
		`quotas: entry 2 is a second one for events a day: keep one of them`,
		`user_rates: entry 2 is a second one for events: keep one of them`,
		`over: must be one of overflow, drop, reject, got "ignore"`,
		`zone: must be the name of a time zone, such as UTC or Europe/Berlin, got "Mars/Base"`,
	}, "\n"))
}

func TestRatesOfUsersAloneAreLimitsOfAProject(t *testing.T) {
	limits := parse(t, store.Fields{"user_rates": "events=1/s", "zone": "Europe/Berlin"}).Limits
	require.NotNil(t, limits)
	require.Len(t, limits.UserRates, 1)
}

func TestFieldsThatNeedOthersSaySo(t *testing.T) {
	for _, test := range []struct {
		fields store.Fields
		fault  string
	}{
		{store.Fields{"zone": "UTC"}, "zone: needs quotas, rates or user_rates of the project's own"},
		{store.Fields{"over": "drop"}, "over: needs quotas, rates or user_rates of the project's own"},
		{store.Fields{"whole": "true"}, "whole: needs quotas, rates or user_rates of the project's own"},
		{store.Fields{"zone": "Mars", "user_rates": "events=1/s"}, "zone: must be the name of a time zone"},
		{store.Fields{"require_origin": "true"}, "require_origin: needs origins: name the sites whose pages may send"},
		{store.Fields{"scopes": "none"},
			"scopes: cannot be none: leave the field out for all, or set enabled to false to refuse the project"},
		{store.Fields{"zone": "Local", "quotas": "none"}, "zone: must be the name of a time zone"},
		{store.Fields{"zone": "../../etc/passwd", "quotas": "none"}, "zone: must be the name of a time zone"},
		{store.Fields{"networks": strings.Repeat("10.0.0.1,", 100) + "10.0.0.1"},
			"networks: must have at most 100 entries, got 101"},
		{store.Fields{"scopes": "events, old"}, `scopes: entry 2: must be one of events, recordings, exceptions, ai, ` +
			`logs, surveys, got "old", or historical for migrations of old events`},
	} {
		_, err := project.Parse(test.fields)
		require.ErrorContains(t, err, test.fault)
	}
}

func TestAClientIsInANetworkWhateverTheFormOfItsAddress(t *testing.T) {
	record := parse(t, store.Fields{"networks": "203.0.113.7/24, ::ffff:10.0.0.0/104, 2001:db8::/32, 192.0.2.1"})
	require.Equal(t, "203.0.113.0/24, 10.0.0.0/8, 2001:db8::/32, 192.0.2.1/32", record.Fields()["networks"])
	for address, want := range map[string]bool{
		"203.0.113.200": true, "::ffff:203.0.113.200": true, "10.255.0.1": true, "2001:db8::1": true,
		"2001:db8::1%eth0": true, "192.0.2.1": true,
		"192.0.2.2": false, "203.0.114.1": false, "2001:db9::1": false, "": false, "unknown": false,
	} {
		require.Equal(t, want, record.AllowsAddress(address), address)
	}
	// A network that is larger than that of all IPv4 addresses in the form of IPv6 is one of IPv6.
	require.Equal(t, "::/64", parse(t, store.Fields{"networks": "::ffff:10.0.0.0/64"}).Fields()["networks"])
}

func TestRoutesOfOtherModulesAreForEverybody(t *testing.T) {
	record := parse(t, store.Fields{"endpoints": "recordings, setup"})
	require.True(t, record.AllowsGroup(route.Recordings))
	require.True(t, record.AllowsGroup(route.Setup))
	require.False(t, record.AllowsGroup(route.Analytics))
	require.True(t, record.AllowsGroup("blocklist"))
}

// docs/projects.md describes the fields in the words of the reference.
func TestTheDocumentationDescribesEveryField(t *testing.T) {
	page, err := os.ReadFile("../../docs/projects.md")
	require.NoError(t, err)
	for _, field := range project.Reference() {
		require.Contains(t, string(page), fmt.Sprintf("| `%s` | %s |\n", field.Name, field.About))
	}
}

var words = map[string][]string{
	"id": {"1", "a b"}, "name": {"Shop", " Größe "}, "enabled": {"true", "false"},
	"scopes": {"events", "logs, historical, events", "surveys,surveys"}, "endpoints": {"ai", "setup,logs"},
	"origins":        {"HTTPS://Example.COM:443/", "http://*.bücher.example:8080", "app://[::1]:1, null"},
	"require_origin": {"true", "false"}, "networks": {"::1", "10.1.2.3/8, ::ffff:1.2.3.4"},
	"zone": {"UTC", "Asia/Kolkata"}, "quotas": {"none", "events=0/day", "ai=1/hour ,ai=2/day"},
	"rates": {"none", "logs=5/m burst=2"}, "user_rates": {"events=1/h"}, "over": {"overflow", "drop"},
	"whole": {"true"},
}

func TestWhatIsWrittenReadsTheSameAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fields := store.Fields{}
		for name, values := range words {
			if rapid.Bool().Draw(t, "has "+name) {
				fields[name] = rapid.SampledFrom(values).Draw(t, name)
			}
		}
		record, err := project.Parse(fields)
		if err != nil {
			return
		}
		written := record.Fields()
		again, err := project.Parse(written)
		require.NoError(t, err, "%v became %v", fields, written)
		require.Equal(t, written, again.Fields())
		if zone := record.Limits; zone != nil && zone.Zone != nil {
			require.Equal(t, zone.Zone.String(), again.Limits.Zone.String())
			record.Limits.Zone, again.Limits.Zone = nil, nil
		}
		require.Equal(t, record, again)
	})
}

func FuzzARecordIsReadOrRefused(f *testing.F) {
	for name, values := range words {
		for _, value := range values {
			f.Add(name, value)
		}
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		record, err := project.Parse(store.Fields{name: value})
		if err != nil {
			return
		}
		written := record.Fields()
		again, err := project.Parse(written)
		require.NoError(t, err, "%q became %q", value, written)
		require.Equal(t, written, again.Fields())
		record.AllowsOrigin(value)
		record.AllowsAddress(value)
	})
}
