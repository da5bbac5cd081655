package posthog

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/route"
)

const (
	without = "event submitted without an api_key: the Authorization header "
	must    = "; it must have the scheme Bearer and the project's API key"
)

// Section 2.8 of the protocol, for the paths that take the token from the Authorization header.
func TestBearerTokenIsCheckedForItsShape(t *testing.T) {
	for value, want := range map[string]struct{ token, fault string }{
		"Bearer phc_a":      {token: "phc_a"},
		"bearer phc_a":      {token: "phc_a"},
		"  Bearer   phc_a ": {token: "phc_a"},
		"Bearer%20phc_a":    {token: "phc_a"},
		"phc_a":             {token: "phc_a"},
		"":                  {fault: "event submitted without an api_key"},
		"Basic cGhjX2E6": {
			fault: without + "has the scheme Basic" + must},
		"Digest phc_a phc_a": {
			fault: without + "has a scheme other than Bearer" + must},
		"Bearer": {
			fault: without + "has the scheme Bearer, but no token" + must},
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

func TestATokenOfTheQueryStandsBesideAnAuthorizationOfTheSiteOnly(t *testing.T) {
	for authorization, want := range map[string]string{
		"Basic c3RhZ2U6c2VjcmV0": "phc_q",
		"Digest a=b c=d":         "phc_q",
		"Bearer undefined":       "phc_q",
		"Bearer phc_h":           "phc_h",
		"phc_h":                  "phc_h",
		"Bearer":                 "",
		"":                       "",
	} {
		token, err := BearerToken(&route.Request{
			RawQuery: "token=phc_q", Header: route.Headers{"Authorization": authorization},
		})
		require.Equal(t, want, token, authorization)
		require.Equal(t, want == "", err != nil, authorization)
	}
}

func TestATokenOfTheQueryGoesBeforeAnAuthorizationThatMayBeTheSites(t *testing.T) {
	const neither = ", and neither the body nor the query has a token"
	const placeholder = "or X-Api-Key has undefined, null or the like in the place of the token"
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
		{"", "", "", "event submitted without an api_key"},
		{"token=", "Basic c3RhZ2U6c2VjcmV0", "", without + "has the scheme Basic" + neither},
		{"", "Bearer null", "", without + placeholder + neither},
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

func TestATokenOfTheHeadServesARequestWhoseBodyHasNone(t *testing.T) {
	const (
		bare     = `{"event":"a","distinct_id":"u"}`
		recorded = `{"event":"$snapshot","properties":{"distinct_id":"u","$session_id":"s","$snapshot_data":[{"a":1}]}}`
	)
	for _, test := range []struct {
		path, authorization, body string
		status                    int
		token                     string
	}{
		{"/e", "Bearer phc_h", bare, 200, "phc_h"},
		{"/batch", "Bearer%20phc_h", `{"batch":[` + bare + `]}`, 200, "phc_h"},
		{"/batch", "phc_h", `{"api_key":null,"batch":[` + bare + `]}`, 200, "phc_h"},
		{"/batch", "Bearer phc_h", `{"api_key":"","batch":[` + bare + `]}`, 200, "phc_h"},
		{"/e?token=phc_q", "", `{"event":"a","distinct_id":"u","token":" "}`, 200, "phc_q"},
		{"/batch", "Basic c3RhZ2U6c2VjcmV0", `{"api_key":"","batch":[` + bare + `]}`, 401, ""},
		{"/e?token=phc_q", "Basic c3RhZ2U6c2VjcmV0", bare, 200, "phc_q"},
		{"/e?api_key=phc_q", "", `[` + bare + `]`, 200, "phc_q"},
		{"/engage", "Bearer phc_h", `{"$distinct_id":"u","$set":{}}`, 200, "phc_h"},
		{"/s", "Bearer phc_h", recorded, 200, "phc_h"},
		{"/batch?token=phc_q", "Bearer phc_h", `{"api_key":"phc_b","batch":[` + bare + `]}`, 200, "phc_b"},
		{"/e?token=phc_q", "", `{"event":"a","distinct_id":"u","token":"phx_b"}`, 401, ""},
		{"/e", "Bearer phx_h", bare, 401, ""},
		{"/e", "Digest a=b c=d", bare, 401, ""},
	} {
		s := newService(t, DefaultConfig())
		path, query, _ := strings.Cut(test.path, "?")
		request := &route.Request{Path: path, RawQuery: query, Body: []byte(test.body), Received: received,
			Header: route.Headers{"Authorization": test.authorization}}
		handle := s.Capture
		if path == "/s" {
			handle = s.Record
		}
		response := handle(context.Background(), request)
		require.Equal(t, test.status, response.Status, "%+v: %s", test, response.Body)
		if test.status != 200 {
			require.NotContains(t, response.Body, "phx_", "an answer quotes nothing of a request")
			require.NotContains(t, response.Body, "Digest")
			continue
		}
		require.Equal(t, test.token, s.sink.batch.Token, "%+v", test)
		require.Len(t, s.sink.events, 1)
	}
}
