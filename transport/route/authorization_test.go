package route_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/transport/route"
)

func TestATokenIsFoundInTheSpellingsOfTheAuthorizationHeaderThatOccur(t *testing.T) {
	for value, want := range map[string]struct {
		token  string
		scheme route.Scheme
	}{
		"":                          {"", route.SchemeNone},
		"  ":                        {"", route.SchemeNone},
		`""`:                        {"", route.SchemeNone},
		"Bearer phc_a":              {"phc_a", route.SchemeBearer},
		"bearer phc_a":              {"phc_a", route.SchemeBearer},
		"BEARER\tphc_a":             {"phc_a", route.SchemeBearer},
		"  Bearer   phc_a ":         {"phc_a", route.SchemeBearer},
		"Bearer%20phc_a":            {"phc_a", route.SchemeBearer},
		"%20Bearer%20phc%5Fa":       {"phc_a", route.SchemeBearer},
		"%22Bearer%20phc_a%22":      {"phc_a", route.SchemeBearer},
		"Bearer+phc_a":              {"phc_a", route.SchemeBearer},
		"Bearer: phc_a":             {"phc_a", route.SchemeBearer},
		"Bearer Bearer phc_a":       {"phc_a", route.SchemeBearer},
		`"Bearer phc_a"`:            {"phc_a", route.SchemeBearer},
		`Bearer "phc_a"`:            {"phc_a", route.SchemeBearer},
		"Bearer two words":          {"two words", route.SchemeBearer},
		"Bearer":                    {"", route.SchemeEmpty},
		"Bearer%20":                 {"", route.SchemeEmpty},
		"Bearer Bearer":             {"", route.SchemeEmpty},
		"phc_a":                     {"phc_a", route.SchemeBare},
		"BearerOfNews":              {"BearerOfNews", route.SchemeBare},
		"100%":                      {"100%", route.SchemeBare},
		"Basic c3RhZ2U6c2VjcmV0":    {"", route.SchemeBasic},
		"basic%20c3RhZ2U6c2VjcmV0":  {"", route.SchemeBasic},
		"Basic":                     {"", route.SchemeBasic},
		"Digest username=\"phc_a\"": {"", route.SchemeOther},
		"Bearer phc_a, Basic c3Rh":  {"phc_a", route.SchemeBearer},
		"Basic c3Rh, Bearer phc_a":  {"phc_a", route.SchemeBearer},
		"Bearer phc_a,Bearer phc_b": {"phc_a", route.SchemeBearer},
		"Bearer phc,a, Digest x=1":  {"phc,a", route.SchemeBearer},
		"Bearer phc_a,phc_b":        {"phc_a,phc_b", route.SchemeBearer},
		"Bearer phc_a,":             {"phc_a,", route.SchemeBearer},
		"Basic x, Digest y":         {"", route.SchemeBasic},
		"Bearer , Basic x":          {"", route.SchemeEmpty},
		"Bearer undefined":          {"", route.SchemePlaceholder},
		"Bearer NULL":               {"", route.SchemePlaceholder},
		"Bearer 'None'":             {"", route.SchemePlaceholder},
		"Bearer [object Object]":    {"", route.SchemePlaceholder},
		"nil":                       {"", route.SchemePlaceholder},
		"Bearer undefined_x":        {"undefined_x", route.SchemeBearer},
	} {
		token, scheme := (&route.Request{Header: route.Headers{"Authorization": value}}).Authorization()
		require.Equal(t, want.token, token, value)
		require.Equal(t, want.scheme, scheme, value)
	}
	_, scheme := (&route.Request{}).Authorization()
	require.Equal(t, route.SchemeNone, scheme)
}

func TestTheKeyHeaderIsForRequestsWhoseAuthorizationHasNoToken(t *testing.T) {
	for _, test := range []struct {
		authorization, key, token string
		scheme                    route.Scheme
	}{
		{"", "phc_key", "phc_key", route.SchemeBearer},
		{"", ` "phc_key" `, "phc_key", route.SchemeBearer},
		{"Basic x", "phc_key", "phc_key", route.SchemeBearer},
		{"Bearer undefined", "phc_key", "phc_key", route.SchemeBearer},
		{"Bearer phc_a", "phc_key", "phc_a", route.SchemeBearer},
		{"Basic x", "", "", route.SchemeBasic},
		{"", "undefined", "", route.SchemePlaceholder},
	} {
		token, scheme := (&route.Request{Header: route.Headers{
			"Authorization": test.authorization, "X-Api-Key": test.key,
		}}).Authorization()
		require.Equal(t, test.token, token, "%+v", test)
		require.Equal(t, test.scheme, scheme, "%+v", test)
	}
}

func TestEveryKindOfAuthorizationHeaderHasItsOwnText(t *testing.T) {
	seen := map[string]bool{}
	for scheme := range route.Schemes {
		text := scheme.String()
		require.True(t, strings.HasPrefix(text, "the Authorization header "), text)
		require.False(t, seen[text], text)
		seen[text] = true
	}
}
