package project_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

func TestOriginsAreComparedAsURLsAre(t *testing.T) {
	for text, headers := range map[string]map[string]bool{
		"https://example.com": {
			"https://example.com": true, "HTTPS://Example.Com": true, "https://example.com:443": true,
			"http://example.com": false, "https://example.com:8443": false, "https://www.example.com": false,
			"https://example.com.evil.test": false, "https://evil-example.com": false,
			"https://example.com:0443": false, "https://example.com/": false,
			"https://u@example.com": false, "null": false, "example.com": false,
		},
		"http://localhost:3000": {
			"http://localhost:3000": true, "http://localhost": false, "http://localhost:30000": false,
		},
		"http://example.com:80/": {
			"http://example.com": true, "http://example.com:80": true, "http://example.com:443": false,
		},
		"https://*.example.com": {
			"https://a.example.com": true, "https://A.b.EXAMPLE.com": true, "https://a.example.com:443": true,
			"https://a_b.example.com": true, "https://xn--bcher-kva.example.com": true,
			"https://example.com": false, "https://.example.com": false, "https://aexample.com": false,
			"https://evilexample.com": false,
			"http://a.example.com":    false, "https://a.example.com:444": false,
			"https://a.example.com.evil.test": false, "https://evil.test/.example.com": false,
			"https://evil.test#.example.com":  false,
			"https://evil.test\\.example.com": false, "https://u:p@x.example.com": false,
			"https://a b.example.com": false,
		},
		"https://*.example.com:8443": {"https://a.example.com:8443": true, "https://a.example.com": false},
		"https://bücher.example":     {"https://xn--bcher-kva.example": true, "https://bucher.example": false},
		"http://[2001:DB8::1]:8080":  {"http://[2001:db8::1]:8080": true, "http://[2001:db8::1]": false},
		"capacitor://localhost":      {"capacitor://localhost": true, "ionic://localhost": false},
		"chrome-extension://abcdef":  {"chrome-extension://abcdef": true, "chrome-extension://abcdeg": false},
		"https://shop.example": {
			"https://\u017fhop.example": false, "http\u017f://shop.example": false, "https://SHOP.example": true,
		},
		"https://*.kelvin.example": {"https://a.\u212aelvin.example": false, "https://a.KELVIN.example": true},
		"null":                     {"null": true, "https://null": false, "": true},
	} {
		record := parse(t, store.Fields{"origins": text})
		for header, want := range headers {
			require.Equal(t, want, record.AllowsOrigin(header), "%q with %q", header, text)
		}
	}
}

func TestAnOriginIsWrittenInOneForm(t *testing.T) {
	for text, want := range map[string]string{
		"HTTPS://Example.COM:443/": "https://example.com", "http://a:443": "http://a:443", "null": "null",
		"https://*.Bücher.example": "https://*.xn--bcher-kva.example", "http://[::0001]:80": "http://[::1]",
	} {
		origin, err := project.ParseOrigin(text)
		require.NoError(t, err, text)
		require.Equal(t, want, origin.String())
	}
	for text, fault := range map[string]string{
		"*": "the scheme is missing", "https://*": "a * may only stand in front",
		"https://a.*.example": "a * may only stand", "https://*.*.example": "a * may only stand",
		"https://example.com/path": "no path", "https://u@example.com": "no path",
		"https://example.com?x": "no path", "https://": "the host is no name",
		"https://.example.com": "the host is no name", "https://a b": "the host is no name",
		"https://*.": "the host is no name", "://a": "no scheme", "1a://b": "no scheme",
		"https://a:0": "the port must be", "https://a:65536": "the port must be", "https://a:": "the port must be",
		"https://[1.2.3.4]": "the host is no address", "https://*.[::1]": "the host is no address",
		"https://[::1%25eth0]": "the host is no address",
	} {
		_, err := project.ParseOrigin(text)
		require.ErrorContains(t, err, fault, text)
	}
}

// Servers and apps on phones send no Origin.
func TestARequestThatNamesNoSitePassesUnlessASiteIsRequired(t *testing.T) {
	free := parse(t, store.Fields{"origins": "https://example.com"})
	require.True(t, free.AllowsOrigin(""))
	strict := parse(t, store.Fields{"origins": "https://example.com", "require_origin": "true"})
	require.False(t, strict.AllowsOrigin(""))
	require.True(t, strict.AllowsOrigin("https://example.com"))
	require.False(t, strict.AllowsOrigin("https://example.org"))
}

func TestALookAtARecordCostsNoAllocation(t *testing.T) {
	record := parse(t, store.Fields{
		"origins": "https://a.example, https://*.example.com", "networks": "::1, 10.0.0.0/8",
	})
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if !record.AllowsOrigin("https://www.example.com") || !record.AllowsAddress("10.1.2.3") {
			panic("refused")
		}
	}))
}
