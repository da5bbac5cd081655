package auth

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

func TestEveryFaultOfTheSectionIsReported(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	err := Config{
		Mode: "strickt", OnStoreFailure: "ignore", TTL: time.Millisecond, UnknownTTL: 25 * time.Hour, Replica: "data/",
		Projects: configs.FilesOf(configs.File{Path: "p.yaml", Data: []byte("[]")}), MaxLookups: -1,
	}.Validate()
	require.EqualError(t, err, strings.Join([]string{
		`mode: must be one of open, known, strict, got "strickt"`,
		`projects: p.yaml, line 1: must be tokens, each with the fields of its project`,
		`on_store_failure: must be open or closed, got "ignore"`,
		`ttl: must be from 1s to 24h0m0s, got 1ms`,
		`unknown_ttl: must be from 1s to 24h0m0s, got 25h0m0s`,
		`timeout: must be from 1ms to 1m0s, got 0s`,
		`max_projects: must be from 1 to 10000000, got 0`,
		`max_lookups: must be from 1 to 1000000, got -1`,
		`replica: must be the path of a file, got "data/"`,
	}, "\n"))
	require.Positive(t, DefaultConfig().StopBudget())
	require.Zero(t, config(ModeOpen).StopBudget())
}

func parse(files ...string) (map[string]*known, []string) {
	var all []configs.File
	for i, text := range files {
		all = append(all, configs.File{Path: string(rune('a'+i)) + ".yaml", Data: []byte(text)})
	}
	return parseFiles(all)
}

func TestProjectsAreReadFromFiles(t *testing.T) {
	projects, faults := parse(`
# our shops
phc_shop:
  id: 17
  name: "Shop: north"
  enabled: yes # a text, as everywhere
  scopes: [events, recordings]
  quotas:
    - events=1000000/month
    - recordings=5000/day
`, `{"phc_json": {"id": "1", "enabled": false}, "phc_none": null, 'a{b}:c': {}}`, "", "# nobody\n", "---\n~\n")
	require.Equal(t, []string{`a.yaml, line 3: the project "phc_shop": enabled: must be true or false, got "yes"`},
		faults)
	require.Len(t, projects, 3)
	require.Equal(t, project.Record{ID: "1", Disabled: true}, projects["phc_json"].record)
	require.Contains(t, projects, "phc_none")
	require.Contains(t, projects, "a{b}:c")

	projects, faults = parse("base: &base\n  scopes: [events, recordings]\n  quotas: &q [events=5/day, ai=1/day]\n" +
		"phc_same: *base\nphc_quota:\n  quotas: *q\n")
	require.Empty(t, faults)
	require.Equal(t, store.Fields{"scopes": "events, recordings", "quotas": "events=5/day, ai=1/day"},
		projects["phc_same"].record.Fields())
	require.Equal(t, "events=5/day, ai=1/day", projects["phc_quota"].record.Fields()["quotas"])
}

func TestEveryFaultOfAFileSaysWhereItIs(t *testing.T) {
	_, faults := parse(`
phc_a: {nmae: x, over: drop}
phx_personal: {}
"": {}
" phc_b": {}
? [phc_list]
: {}
phc_c: text
phc_d: [id, 1]
phc_e: {quotas: {events: 5}}
phc_f: {id: 1, id: 2}
phc_g: {rates: [[1]]}
`, "phc_a: {}\n", "phc_z: {id: 1\n", "a: 1\n---\nb: 2\n", "just text")
	require.Equal(t, []string{
		`a.yaml, line 2: the project "phc_a": nmae: is no field of a project: did you mean name?`,
		`a.yaml, line 2: the project "phc_a": over: needs quotas, rates or user_rates of the project's own`,
		`a.yaml, line 3: "phx_personal" is no token: it must be 1 to 64 ASCII characters without blanks around ` +
			`them, and no personal key (phx_)`,
		`a.yaml, line 4: "" is no token: it must be 1 to 64 ASCII characters without blanks around them, and ` +
			`no personal key (phx_)`,
		`a.yaml, line 5: " phc_b" is no token: it must be 1 to 64 ASCII characters without blanks around them, and ` +
			`no personal key (phx_)`,
		`a.yaml, line 6: must be a token and the fields of its project`,
		`a.yaml, line 8: the project "phc_c" must have fields, such as name: Shop`,
		`a.yaml, line 9: the project "phc_d" must have fields, such as name: Shop`,
		`a.yaml, line 10: the field "quotas" of the project "phc_e" must be a text or a list of texts`,
		`a.yaml, line 11: the project "phc_f" has the field "id" twice`,
		`a.yaml, line 12: the field "rates" of the project "phc_g" must be a text or a list of texts`,
		`b.yaml, line 1: the project "phc_a" stands in a.yaml, line 2 already`,
		`c.yaml: line 1: did not find expected ',' or '}'`,
		`d.yaml: must be one document: write all projects below each other, without ---`,
		`e.yaml, line 1: must be tokens, each with the fields of its project`,
	}, faults)
}

func TestAFileFullOfFaultsIsToldOfInPart(t *testing.T) {
	var text strings.Builder
	for i := range 2 * maxFaults {
		text.WriteString("phc_" + strconv.Itoa(i) + ": {x: 1}\n")
	}
	_, faults := parse(text.String())
	require.Len(t, faults, maxFaults+1)
	require.Equal(t, "and 50 faults more", faults[maxFaults])
}

func FuzzAFileIsReadOrRefused(f *testing.F) {
	for _, text := range []string{"phc_a: {id: 1}", "a: &x [b]\nc: *x", "? [x]\n: y", "{}", "- a", "\x00",
		"a: &a\n  id: *a", "<<: {a: b}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		projects, faults := parseFiles([]configs.File{{Path: "x.yaml", Data: text}})
		if len(faults) > 0 {
			return
		}
		for token, known := range projects {
			require.NotEmpty(t, token)
			again, err := project.Parse(known.record.Fields())
			require.NoError(t, err)
			require.Equal(t, known.record.Fields(), again.Fields())
		}
	})
}

func TestTheProbeLooksAtTheDirectoryOfTheReplica(t *testing.T) {
	dir := t.TempDir()
	probe := func(redis, replica string) error {
		set, err := configs.Load([]configs.Section{
			{Name: "auth", Defaults: DefaultConfig()}, {Name: "store", Defaults: store.DefaultConfig()},
		}, configs.Source{Environ: []string{
			"CAPTURE_AUTH__REPLICA=" + replica, "CAPTURE_STORE__REDIS__ADDRS=" + redis,
		}})
		require.NoError(t, err)
		return replicaCanBeWritten(set)
	}
	const redis = "127.0.0.1:6379"
	require.NoError(t, probe(redis, filepath.Join(dir, "new", "projects.json")))
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorContains(t, probe(redis, filepath.Join(file, "projects.json")),
		"is not a directory: the node could not start while Redis is away")
	require.NoError(t, probe("", filepath.Join(file, "projects.json")), "there will be no replica")
	require.NoError(t, probe(redis, ""))
	open := filepath.Join(dir, "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	require.ErrorContains(t, probe(redis, filepath.Join(open, "projects.json")), "all users of this machine can write")
}
