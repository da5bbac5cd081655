package configs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/terminal"
)

type shop struct {
	Name    string           `key:"name" doc:"What the shop is called."`
	Open    bool             `key:"open" doc:"Whether it is open."`
	Doors   int              `key:"doors" doc:"How many doors there are."`
	Visits  int64            `key:"visits" doc:"How many visits there were."`
	Ratio   float64          `key:"ratio" doc:"Visitors who buy, as a fraction."`
	Timeout time.Duration    `key:"read_timeout" doc:"How long a visitor may think."`
	Clerks  []string         `key:"clerks" doc:"Who works there."`
	Shelf   configs.ByteSize `key:"shelf" doc:"How much fits."`
	Safe    configs.Secret   `key:"safe" doc:"The combination."`
	Stock   stock            `key:"stock" doc:"What is on sale."`
}

type stock struct {
	Apples string `key:"apples" doc:"The sort of apples."`
	Limits limits `key:"limits" doc:"How much may be taken."`
}

type limits struct {
	Weight configs.ByteSize `key:"weight" doc:"The heaviest basket."`
}

func (s shop) Validate() error {
	var faults configs.Faults
	faults.Check(s.Timeout > 0, "read_timeout", "must be positive, got %s", s.Timeout)
	faults.Check(s.Doors > 0, "doors", "must be positive, got %d", s.Doors)
	faults.Check(s.Stock.Apples != "", "stock.apples", "must not be empty")
	return faults.Err()
}

type bank struct {
	Rate float64 `key:"rate" doc:"The interest."`
}

func sections() []configs.Section {
	return []configs.Section{
		{Name: "shop", Defaults: shop{
			Name: "corner", Open: true, Doors: 2, Visits: 7, Ratio: 0.25, Timeout: time.Hour,
			Clerks: []string{"ann", "bob"},
			Shelf:  20 * configs.MiB, Stock: stock{Apples: "golden: delicious", Limits: limits{Weight: 1000}},
		}},
		{Name: "street"},
		{Name: "bank", Defaults: bank{Rate: 1}},
	}
}

// write writes the text into a file with this name and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func load(t *testing.T, source configs.Source) shop {
	t.Helper()
	set, err := configs.Load(sections(), source)
	require.NoError(t, err)
	return set.Section("shop").(shop)
}

// faults loads a configuration that must be refused. It returns the lines of the error without the directory of the
// test's files.
func faults(t *testing.T, source configs.Source) []string {
	t.Helper()
	_, err := configs.Load(sections(), source)
	var all *configs.FaultsError
	require.ErrorAs(t, err, &all)
	text := err.Error()
	for _, file := range source.Files {
		text = strings.ReplaceAll(text, filepath.Dir(file)+"/", "")
	}
	return strings.Split(text, "\n")
}

func TestWithoutSourcesTheDefaultsHold(t *testing.T) {
	require.Equal(t, sections()[0].Defaults, load(t, configs.Source{}))
}

func TestAModuleWithoutConfigHasNoSection(t *testing.T) {
	set, err := configs.Load(sections(), configs.Source{})
	require.NoError(t, err)
	require.Nil(t, set.Section("street"))
	require.Nil(t, set.Section("unheard_of"))
}

func TestLaterFilesWinAndTheEnvironmentWinsOverFiles(t *testing.T) {
	got := load(t, configs.Source{
		Files: []string{
			write(t, "a.yaml", "shop:\n  name: first\n  doors: 3\n  clerks: [x, y, z]\n"+
				"  stock: {limits: {weight: 2KiB}}\n"),
			write(t, "b.yaml", "shop:\n  name: second\n  visits: 9\n  clerks: [w]\n"),
		},
		Environ: []string{"PATH=/bin", "CAPTURE_SHOP__VISITS=10", "CAPTURE_SHOP__STOCK__APPLES=gala"},
	})
	require.Equal(t, "second", got.Name)
	require.Equal(t, 3, got.Doors)
	require.EqualValues(t, 10, got.Visits)
	require.Equal(t, []string{"w"}, got.Clerks, "lists are replaced, not joined")
	require.Equal(t, stock{Apples: "gala", Limits: limits{Weight: 2 * configs.KiB}}, got.Stock)
}

func TestEveryTypeIsReadFromAFileAndFromTheEnvironment(t *testing.T) {
	want := shop{
		Name: "0123", Open: false, Doors: 4, Visits: 1 << 40, Ratio: 1e-3, Timeout: 90 * time.Second,
		Clerks: []string{"a:1", "b:2"}, Shelf: 3 * configs.GiB, Safe: "12:34",
		Stock: stock{Apples: "no", Limits: limits{Weight: 5}},
	}
	file := write(t, "all.yaml", `
shop:
  name: 0123
  open: false
  doors: 4
  visits: 1099511627776
  ratio: 1e-3
  read_timeout: 1m30s
  clerks: ["a:1", b:2]
  shelf: 3GiB
  safe: 12:34
  stock:
    apples: no
    limits:
      weight: 5
`)
	require.Equal(t, want, load(t, configs.Source{Files: []string{file}}))
	require.Equal(t, want, load(t, configs.Source{Environ: []string{
		"CAPTURE_SHOP__NAME=0123", "CAPTURE_SHOP__OPEN=false", "CAPTURE_SHOP__DOORS=4",
		"CAPTURE_SHOP__VISITS=1099511627776",
		"CAPTURE_SHOP__RATIO=1e-3", "CAPTURE_SHOP__READ_TIMEOUT=1m30s", "CAPTURE_SHOP__CLERKS=a:1, b:2,",
		"CAPTURE_SHOP__SHELF=3GiB", "CAPTURE_SHOP__SAFE=12:34", "CAPTURE_SHOP__STOCK__APPLES=no",
		"CAPTURE_shop__stock__Limits__WEIGHT=5",
	}}))
}

func TestEmptyFilesAndSectionsChangeNothing(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "shop:\n", "shop:\n  stock:\n    # apples: gala\n"} {
		require.Equal(t, sections()[0].Defaults,
			load(t, configs.Source{Files: []string{write(t, "empty.yaml", text)}}), text)
	}
}

func TestAliasesAreFollowed(t *testing.T) {
	file := write(t, "alias.yaml", "shop:\n  name: &n gala\n  clerks: [*n]\n  stock: {apples: *n}\n")
	got := load(t, configs.Source{Files: []string{file}})
	require.Equal(t, []string{"gala"}, got.Clerks)
	require.Equal(t, "gala", got.Stock.Apples)
}

func TestFaultsInFiles(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"syntax": {"shop:\n  name: a: b\n",
			[]string{"f.yaml: line 2: mapping values are not allowed in this context"}},
		"not a mapping": {"- shop\n", []string{"f.yaml: line 1: a configuration is a mapping of sections"}},
		"two documents": {"bank: {rate: 2}\n---\nbank: {rate: 3}\n",
			[]string{"f.yaml: line 2: a second document begins here, and only one can be read: use a file for each"}},
		"misspelt section": {"shpo: {doors: 1}\n", []string{"shpo: unknown section, did you mean shop? (f.yaml:1)"}},
		"unknown section": {"kitchen: {doors: 1}\n",
			[]string{"kitchen: unknown section: the modules of this build have shop, bank (f.yaml:1)"}},
		"misspelt key": {"shop:\n  dors: 1\n",
			[]string{"shop.dors: unknown key, did you mean shop.doors? (f.yaml:2)"}},
		"swapped letters": {"shop: {doros: x}\n",
			[]string{"shop.doros: unknown key, did you mean shop.doors? (f.yaml:1)"}},
		"misspelt deep key": {"shop: {stock: {limits: {wieght: 1}}}\n",
			[]string{"shop.stock.limits.wieght: unknown key, did you mean shop.stock.limits.weight? (f.yaml:1)"}},
		"misplaced key": {"shop: {weight: 1}\n",
			[]string{"shop.weight: unknown key, did you mean shop.stock.limits.weight? (f.yaml:1)"}},
		"far from any": {"shop: {telephone: 1}\n", []string{"shop.telephone: unknown key (f.yaml:1)"}},
		"dotted": {"shop.doors: 1\n",
			[]string{"shop.doors: is written with a dot: put each part on a line of its own, indented " +
				"below the other (f.yaml:1)"}},
		"twice": {"shop:\n  doors: 1\n  doors: 2\n", []string{"shop.doors: is given twice (f.yaml:3)"}},
		"no value": {"shop:\n  clerks:\n",
			[]string{"shop.clerks: has no value: give it one, or leave the key out (f.yaml:2)"}},
		"value for a group": {"shop: {stock: 1}\n",
			[]string{"shop.stock: is a group of keys, not a value (f.yaml:1)"}},
		"value for section": {"shop: 1\n", []string{"shop: is a group of keys, not a value (f.yaml:1)"}},
		"group for a value": {"shop: {name: {a: b}}\n",
			[]string{"shop.name: is a value, not a group of keys (f.yaml:1)"}},
		"list for a value": {"shop: {name: [a]}\n", []string{"shop.name: is one value, not a list (f.yaml:1)"}},
		"list of lists": {"shop: {clerks: [a, [b]]}\n",
			[]string{"shop.clerks: item 2 of the list is not a plain value (f.yaml:1)"}},
		"duration": {"shop: {read_timeout: abc}\n",
			[]string{`shop.read_timeout: "abc" is not a duration: write a number with a unit, such as ` +
				`500ms, 10s or 2m (f.yaml:1)`}},
		"duration, no unit": {"shop: {read_timeout: 30}\n",
			[]string{`shop.read_timeout: "30" is not a duration: write a number with a unit, such as ` +
				`500ms, 10s or 2m (f.yaml:1)`}},
		"bool":  {"shop: {open: yes}\n", []string{`shop.open: "yes" is not true or false (f.yaml:1)`}},
		"int":   {"shop: {doors: 1.5}\n", []string{`shop.doors: "1.5" is not a whole number (f.yaml:1)`}},
		"float": {"shop: {ratio: half}\n", []string{`shop.ratio: "half" is not a number (f.yaml:1)`}},
		"size": {"shop: {shelf: big}\n",
			[]string{`shop.shelf: "big" is not a size: write a number of bytes or a unit, such as ` +
				`512KiB or 20MiB (f.yaml:1)`}},
		"what Validate says": {"shop: {doors: -1}\n", []string{"shop.doors: must be positive, got -1 (f.yaml:1)"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, faults(t, configs.Source{Files: []string{write(t, "f.yaml", test.text)}}))
		})
	}
}

func TestFaultsInTheEnvironmentNameTheVariable(t *testing.T) {
	for name, test := range map[string]struct{ entry, want string }{
		"misspelt": {"CAPTURE_SHOP__DORS=1",
			"shop.dors: unknown environment variable CAPTURE_SHOP__DORS, did you mean CAPTURE_SHOP__DOORS?"},
		"one line": {"CAPTURE_SHOP_DOORS=1",
			"shop_doors: unknown environment variable CAPTURE_SHOP_DOORS, did you mean CAPTURE_SHOP__DOORS?"},
		"section only": {"CAPTURE_SHOP=1", "shop: is a group of keys, not a value (CAPTURE_SHOP)"},
		"far from any": {"CAPTURE_TELEPHONE=1", "telephone: unknown environment variable CAPTURE_TELEPHONE"},
		"wrong type":   {"CAPTURE_SHOP__DOORS=many", `shop.doors: "many" is not a whole number (CAPTURE_SHOP__DOORS)`},
		"empty number": {"CAPTURE_SHOP__DOORS=", `shop.doors: "" is not a whole number (CAPTURE_SHOP__DOORS)`},
		"against rules": {"CAPTURE_SHOP__STOCK__APPLES=",
			"shop.stock.apples: must not be empty (CAPTURE_SHOP__STOCK__APPLES)"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, []string{test.want}, faults(t, configs.Source{Environ: []string{test.entry}}))
		})
	}
}

func TestVariablesOfTestsAndOfKubernetesAreNotSettings(t *testing.T) {
	require.Equal(t, sections()[0].Defaults, load(t, configs.Source{Environ: []string{
		"CAPTURE_TEST_KAFKA_BROKERS=localhost:9092",
		"CAPTURE_SERVICE_HOST=10.0.0.1", "CAPTURE_SERVICE_PORT=8000", "CAPTURE_SERVICE_PORT_HTTP=8000",
		"CAPTURE_PORT=tcp://10.0.0.1:8000", "CAPTURE_PORT_8000_TCP=tcp://10.0.0.1:8000",
		"CAPTURE_PORT_8000_TCP_PROTO=tcp",
		"CAPTURE_PORT_8000_TCP_PORT=8000", "CAPTURE_PORT_8000_TCP_ADDR=10.0.0.1", "CAPTURE_ADMIN_SERVICE_HOST=10.0.0.2",
	}}))
}

func TestAllFaultsAreReportedAtOnce(t *testing.T) {
	got := faults(t, configs.Source{
		Files: []string{
			filepath.Join(t.TempDir(), "absent.yaml"),
			write(t, "broken.yaml", "shop: ["),
			write(t, "f.yaml", "shop:\n  doors: -1\n  read_timeout: soon\n  colour: red\nbank:\n  rate: low\n"+
				"garden: {}\n"),
		},
		Environ: []string{"CAPTURE_BANK__RAET=1"},
	})
	require.Equal(t, []string{
		"absent.yaml: cannot be read: no such file or directory",
		"broken.yaml: line 1: did not find expected node content",
		"shop.colour: unknown key (f.yaml:4)",
		"garden: unknown section: the modules of this build have shop, bank (f.yaml:7)",
		"bank.raet: unknown environment variable CAPTURE_BANK__RAET, did you mean CAPTURE_BANK__RATE?",
		`shop.read_timeout: "soon" is not a duration: write a number with a unit, such as 500ms, 10s or 2m (f.yaml:3)`,
		`bank.rate: "low" is not a number (f.yaml:6)`,
		"shop.doors: must be positive, got -1 (f.yaml:2)",
	}, got)
}

func TestRulesSeeTheWholeSetAndReportWithTheRest(t *testing.T) {
	rule := func(set *configs.Set) error {
		var faults configs.Faults
		faults.Check(set.Section("bank").(bank).Rate < float64(set.Section("shop").(shop).Doors), "bank.rate",
			"is more than there are doors")
		return faults.Err()
	}
	_, err := configs.Load(sections(),
		configs.Source{Environ: []string{"CAPTURE_BANK__RATE=5", "CAPTURE_SHOP__READ_TIMEOUT=-1s"}}, rule)
	require.EqualError(t, err, "shop.read_timeout: must be positive, got -1s (CAPTURE_SHOP__READ_TIMEOUT)\n"+
		"bank.rate: is more than there are doors (CAPTURE_BANK__RATE)")
}

func TestModulesMustFitTogether(t *testing.T) {
	type noTag struct{ Name string }
	type odd struct {
		Channel chan int       `key:"channel"`
		Pin     configs.Secret `key:"pin"`
	}
	_, err := configs.Load([]configs.Section{
		{Name: "a", Defaults: bank{}},
		{Name: "a"},
		{},
		{Name: "b", Defaults: &bank{}},
		{Name: "c", Defaults: noTag{}},
		{Name: "d", Defaults: odd{Pin: "1234"}},
	}, configs.Source{})
	require.EqualError(t, err, strings.Join([]string{
		"a: two modules of this build have this name: leave one out",
		"modules: a module of this build has no name",
		"b: a section is a struct value, not a *configs_test.bank",
		"c: field Name of configs_test.noTag needs to be exported and to have a key tag",
		"d.channel: a key cannot be a chan int",
		"d.pin: a secret has no default",
	}, "\n"))
}

// A command prints \u200b in the place of a character that cannot be seen. YAML reads that in double quotes only.
func TestAPrintedTextThatCannotBeSeenIsInDoubleQuotes(t *testing.T) {
	set, err := configs.Load(sections(), configs.Source{Environ: []string{
		"CAPTURE_SHOP__NAME=co\u200brner", "CAPTURE_SHOP__CLERKS=e\u202eve,größer",
	}})
	require.NoError(t, err)
	text, err := set.YAML()
	require.NoError(t, err)
	escaped := string(terminal.EscapeLines(text))
	require.Contains(t, escaped, `name: "co\u200brner"`)
	require.Contains(t, escaped, `clerks: ["e\u202eve", größer]`)
}

func TestPrintedConfigurationMasksSecretsAndSaysWhereValuesComeFrom(t *testing.T) {
	file := write(t, "print.yaml", "shop:\n  doors: 9\n  safe: left-right-left\n")
	set, err := configs.Load(sections(),
		configs.Source{Files: []string{file}, Environ: []string{"CAPTURE_SHOP__CLERKS=eve"}})
	require.NoError(t, err)
	text, err := set.YAML()
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(`shop:
  name: corner
  open: true
  doors: 9 # FILE:2
  visits: 7
  ratio: 0.25
  read_timeout: 1h
  clerks: [eve] # CAPTURE_SHOP__CLERKS
  shelf: 20MiB
  safe: '******' # FILE:3
  stock:
    apples: 'golden: delicious'
    limits:
      weight: 1000

bank:
  rate: 1
`, "FILE", file), string(text))
}

func TestReferenceLoadsAsTheDefaults(t *testing.T) {
	text, err := configs.Reference(sections())
	require.NoError(t, err)
	require.Contains(t, string(text), "  # How long a visitor may think. Duration.\n  read_timeout: 1h\n")
	require.Contains(t, string(text), "    limits:\n      # The heaviest basket. Size.\n      weight: 1000\n")
	require.Contains(t, string(text), "CAPTURE_<SECTION>__<KEY>")

	set, err := configs.Load(sections(), configs.Source{Files: []string{write(t, "reference.yaml", string(text))}})
	require.NoError(t, err)
	require.Equal(t, sections()[0].Defaults, set.Section("shop"))
	require.Equal(t, sections()[2].Defaults, set.Section("bank"))
}

func TestKeysAreThoseOfTheReferenceInItsOrder(t *testing.T) {
	keys, err := configs.Keys(sections())
	require.NoError(t, err)
	require.Equal(t, []string{
		"shop.name", "shop.open", "shop.doors", "shop.visits", "shop.ratio", "shop.read_timeout", "shop.clerks",
		"shop.shelf", "shop.safe",
		"shop.stock.apples", "shop.stock.limits.weight", "bank.rate",
	}, keys)

	_, err = configs.Keys([]configs.Section{{Name: "shop"}, {Name: "shop"}})
	require.ErrorContains(t, err, "two modules of this build have this name")
}

func TestReferenceKeepsAwkwardDefaults(t *testing.T) {
	type awkward struct {
		Text  string        `key:"text" doc:"Text."`
		Lines string        `key:"lines" doc:"Lines."`
		Empty string        `key:"empty" doc:"Nothing."`
		None  []string      `key:"none" doc:"None."`
		List  []string      `key:"list" doc:"List."`
		Long  time.Duration `key:"long" doc:"Long."`
		Odd   time.Duration `key:"odd" doc:"Odd."`
		Tiny  float64       `key:"tiny" doc:"Tiny."`
	}
	build := []configs.Section{{Name: "awkward", Defaults: awkward{
		Text: "# no: comment, 'true'", Lines: "one\n  two\n", List: []string{"a, b", "null", "", "12"},
		Long: 48*time.Hour + 5*time.Minute, Odd: 1500*time.Microsecond + 1, Tiny: 5e-324,
	}}}
	text, err := configs.Reference(build)
	require.NoError(t, err)
	set, err := configs.Load(build, configs.Source{Files: []string{write(t, "reference.yaml", string(text))}})
	require.NoError(t, err, string(text))
	require.Equal(t, build[0].Defaults, set.Section("awkward"))
}

func FuzzAnyFileLoadsOrIsFaulty(f *testing.F) {
	for _, text := range []string{
		"", "---", "...", "# only a comment", "shop:\n  name: x\n", "shop: {stock: {limits: {weight: 1}}}",
		"a: &a [*a]", "<<: {shop: 1}",
		"? [a]\n: b\n", "shop: !!binary aGk=\n", "!!null x: y", "\xff", "shop:\n\tname: x", "shop: *nowhere",
		"%YAML 9\n---\na", "--- >\n x",
	} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "fuzz.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		require.NoError(t, os.WriteFile(path, text, 0o600))
		set, err := configs.Load(sections(), configs.Source{Files: []string{path}})
		if err == nil {
			require.NotNil(t, set)
			return
		}
		var faults *configs.FaultsError
		require.ErrorAs(t, err, &faults)
	})
}
