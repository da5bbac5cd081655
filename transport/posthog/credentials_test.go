package posthog

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/route"
)

const without = "event submitted without an api_key: the Authorization header "

// Section 2.8 of the protocol, for the paths that take the token from the Authorization header.
func TestBearerTokenIsCheckedForItsShape(t *testing.T) {
	for value, want := range map[string]struct{ token, fault string }{
		"Bearer phc_a":      {token: "phc_a"},
		"bearer phc_a":      {token: "phc_a"},
		"  Bearer   phc_a ": {token: "phc_a"},
		"Bearer%20phc_a":    {token: "phc_a"},
		"phc_a":             {token: "phc_a"},
		"":                  {fault: without + "is missing; it must be Bearer and the project's API key"},
		"Basic cGhjX2E6": {
			fault: without + "has the scheme Basic; it must be Bearer and the project's API key"},
		"Digest phc_a phc_a": {
			fault: without + "has a scheme other than Bearer; it must be Bearer and the project's API key"},
		"Bearer": {
			fault: without + "has the scheme Bearer, but no token; it must be Bearer and the project's API key"},
		"Bearer phx_a":                      {fault: "API key is not valid: personal_api_key"},
		"phx_a":                             {fault: "API key is not valid: personal_api_key"},
		"Bearer " + strings.Repeat("k", 65): {fault: "API key is not valid: too_long"},
		"Bearer phc_\u00e4":                 {fault: "API key is not valid: not_ascii"},
	} {
		token, err := BearerToken(&route.Request{Header: route.Headers{"Authorization": value}})
		require.Equal(t, want.token, token, value)
		if want.fault == "" {
			require.Nil(t, err, value)
			continue
		}
		require.EqualError(t, err, want.fault, value)
		require.Equal(t, events.Unauthorized, err.Code, value)
	}
}

func TestATokenOfTheQueryGoesBeforeAnAuthorizationThatMayBeTheSites(t *testing.T) {
	const neither = ", and neither the body nor the query has a token"
	for _, test := range []struct{ query, authorization, token, fault string }{
		{"token=phc_a", "", "phc_a", ""},
		{"api_key=phc_a", "", "phc_a", ""},
		{"a=b&token=phc%5Fa", "Basic c3RhZ2U6c2VjcmV0", "phc_a", ""},
		{"token=phc_a", "Bearer " + strings.Repeat("jwt", 30), "phc_a", ""},
		{"token=phc_a", "Bearer phc_b", "phc_a", ""},
		{"token=phx_a", "Bearer phc_b", "phc_b", ""},
		{"token=&api_key=", "Bearer phc_b", "phc_b", ""},
		{"%zz&token=phc_a", "", "phc_a", ""},
		{"", "Bearer%20phc_b", "phc_b", ""},
		{"", "phc_b", "phc_b", ""},
		{"token=phx_a", "", "", "API key is not valid: personal_api_key"},
		{"", "Bearer phx_a", "", "API key is not valid: personal_api_key"},
		{"", "", "", without + "is missing" + neither},
		{"token=", "Basic c3RhZ2U6c2VjcmV0", "", without + "has the scheme Basic" + neither},
		{"other=phc_a", "Bearer", "", without + "has the scheme Bearer, but no token" + neither},
	} {
		token, err := HeadToken(&route.Request{
			RawQuery: test.query, Header: route.Headers{"Authorization": test.authorization},
		})
		require.Equal(t, test.token, token, "%+v", test)
		if test.fault == "" {
			require.Nil(t, err, "%+v", test)
			continue
		}
		require.EqualError(t, err, test.fault, "%+v", test)
		require.Equal(t, events.Unauthorized, err.Code, "%+v", test)
	}
}
