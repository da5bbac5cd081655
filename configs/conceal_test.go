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

type shelf struct {
	Name string   `key:"name" doc:"A name."`
	List []string `key:"list" doc:"Names."`
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
