package configs_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
)

func TestAMessageDoesNotShowTheLoginThatAValueHolds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://user:hunter2@host/path":       "https://******@host/path",
		"https://hunter2@host":                 "https://******@host",
		"https://host/path?key=hunter2":        "https://host/path?******",
		"https://host/#hunter2":                "https://host/#******",
		"redis://:hun@ter2@host:1":             "redis://******@host:1",
		"user:hunter2@host:9092":               "******@host:9092",
		"user:hun,ter2@host:9092,other:9092":   "******@host:9092,other:9092",
		"u:p@host":                             "******@host",
		"host:9092;password=hunter2;tls=on":    "host:9092;password=******;tls=on",
		"Endpoint=sb://h/;AccessKey=hunter2+=": "Endpoint=sb://h/;AccessKey=******",
		"us.i.posthog.com":                     "us.i.posthog.com",
		"a@b":                                  "a@b",
		"phc_token:user,phc_other":             "phc_token:user,phc_other",
		"https://us.i.posthog.com/behind/this": "https://us.i.posthog.com/behind/this",
	} {
		require.Equal(t, want, configs.Conceal(text, text))
	}
	require.Equal(t, `got "******@host"`, configs.Conceal(`got "user:\"hunter2\n@host"`, "user:\"hunter2\n@host"))
	require.Equal(t, `got "******"`, configs.Conceal(`got "user:hun"`, "user:hun,ter2@host:9092"))
}

type doors struct {
	Name  string         `key:"name" doc:"A name."`
	List  []string       `key:"list" doc:"Names."`
	Count int            `key:"count" doc:"A number."`
	Pin   configs.Secret `key:"pin" doc:"A secret."`
}

// Validate quotes everything, as a section must not do.
func (d doors) Validate() error {
	var faults configs.Faults
	faults.Addf("name", "is %q, with the list %q and the pin %q", d.Name, d.List, d.Pin.Reveal())
	return faults.Err()
}

func TestNoFaultOfAConfigurationShowsASecret(t *testing.T) {
	t.Parallel()
	_, err := configs.Load([]configs.Section{{Name: "shop", Defaults: doors{}}}, configs.Source{Environ: []string{
		"CAPTURE_SHOP__NAME=https://user:hunter2@host/?q=hunter2", "CAPTURE_SHOP__PIN=hunter2",
		"CAPTURE_SHOP__LIST=a:1,user:hun,ter2@b:2,c:3", "CAPTURE_SHOP__COUNT=http://hunter2@host",
	}})
	require.EqualError(t, err, `shop.count: "http://******@host" is not a whole number (CAPTURE_SHOP__COUNT)`+"\n"+
		`shop.name: is "https://******@host/?******", with the list ["******" "******" "******@b:2" "c:3"] and the `+
		`pin "******" (CAPTURE_SHOP__NAME)`)
}

func TestTheTextOfAnotherProgramShowsNoSecretThatHasTheFormOfOne(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"curl: (6) Could not resolve host: idp.example.com": "curl: (6) Could not resolve host: idp.example.com",
		"error: token expired":                              "error: token expired",
		"POST client_secret=hunter2&scope=x: 401":           "POST client_secret=******&scope=x: 401",
		`bad request {"client_secret": "hunter2","a":1}`:    `bad request {"client_secret": "******","a":1}`,
		"see 'https://me:hunter2@idp/x?code=hunter2'":       "see 'https://******@idp/x?******'",
		"got eyJhbGciOiJub25lIn0.e30.sig":                   "got ******",
		"Authorization: Bearer hunter2hunter2":              "Authorization: ******",
		"no user given wrong":                               "no user ****** wrong",
	} {
		require.Equal(t, want, configs.ConcealText(text, "given"))
	}
}

type shelf struct {
	Name string          `key:"name" doc:"A name."`
	List []string        `key:"list" doc:"Names."`
	Open configs.Command `key:"open" doc:"A command."`
}

func TestAPrintedConfigurationShowsTheProgramOfACommandOnly(t *testing.T) {
	t.Parallel()
	for variable, want := range map[string]string{
		"CAPTURE_SHOP__OPEN=key,--pin,hunter2": "open: [key, '******', '******'] #",
		"CAPTURE_SHOP__OPEN=key":               "open: [key] #",
		"CAPTURE_SHOP__OPEN=":                  "open: []",
	} {
		set, err := configs.Load([]configs.Section{{Name: "shop", Defaults: shelf{}}},
			configs.Source{Environ: []string{variable}})
		require.NoError(t, err)
		text, err := set.YAML()
		require.NoError(t, err)
		require.Contains(t, string(text), want)
	}
}

func TestAPrintedConfigurationShowsNoLogin(t *testing.T) {
	t.Parallel()
	set, err := configs.Load([]configs.Section{{Name: "shop", Defaults: shelf{}}}, configs.Source{Environ: []string{
		"CAPTURE_SHOP__NAME=redis://:hunter2@host:1/0",
		"CAPTURE_SHOP__LIST=user:hunter2@host:1,hunter2@host:1,phc_token:me@example.com,you@example.com",
	}})
	require.NoError(t, err)
	text, err := set.YAML()
	require.NoError(t, err)
	require.Contains(t, string(text), "redis://******@host:1/0")
	require.Contains(t, string(text), "['******@host:1', '******@host:1', 'phc_token:me@example.com', you@example.com]")
	require.NotContains(t, string(text), "hunter2")
}
