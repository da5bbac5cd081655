package configs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
)

// kiosk is a section with live settings, a live group of settings, and a setting that is not live.
type kiosk struct {
	Color  string         `key:"color" live:"true" doc:"The color of the door."`
	Prices prices         `key:"prices" live:"true"`
	Street string         `key:"street" doc:"Where it stands."`
	Code   configs.Secret `key:"code" live:"true" doc:"The code of the door."`
}

type prices struct {
	Paper int `key:"paper" doc:"What a paper costs."`
	Candy int `key:"candy" doc:"What candy costs."`
}

func (k kiosk) Validate() error {
	var faults configs.Faults
	faults.Check(k.Prices.Paper > 0, "prices.paper", "must be positive, got %d", k.Prices.Paper)
	return faults.Err()
}

// open returns the live configuration of a kiosk, which is loaded from a file, and a function that writes the file.
func open(t *testing.T) (*configs.Live, func(text string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kiosk.yaml")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write("")
	load := func() (*configs.Set, error) {
		return configs.Load([]configs.Section{
			{Name: "kiosk", Defaults: kiosk{Color: "red", Prices: prices{Paper: 2, Candy: 1}, Street: "Main"}},
			{Name: "bank", Defaults: bank{Rate: 1}},
		}, configs.Source{Files: []string{path}})
	}
	set, err := load()
	require.NoError(t, err)
	return configs.NewLive(set, load), write
}

func TestAReloadChangesValuesAndLeavesWhoHasBegunWithTheOldOnes(t *testing.T) {
	live, write := open(t)
	sign, err := configs.NewValue(live, func(k kiosk) (string, error) { return "the " + k.Color + " kiosk", nil })
	require.NoError(t, err)
	paper, err := configs.NewValue(live, func(p prices) (int, error) { return p.Paper, nil })
	require.NoError(t, err)
	begun := live.View()
	require.Equal(t, 1, begun.Number())

	write("kiosk: {color: blue, prices: {paper: 3}}\n")
	status, err := live.Reload()
	require.NoError(t, err)
	require.Equal(t, []string{"kiosk.color", "kiosk.prices.paper"}, status.Changed)
	require.Equal(t, 2, status.Number)
	require.Empty(t, status.Error)

	require.Equal(t, "the blue kiosk", sign.Now())
	require.Equal(t, "the blue kiosk", sign.In(nil))
	require.Equal(t, 3, paper.In(live.View()))
	require.Equal(t, "the red kiosk", sign.In(begun))
	require.Equal(t, 2, paper.In(begun))
	require.Equal(t, 2, live.View().Number())
	require.Equal(t, "blue", live.View().Set().Section("kiosk").(kiosk).Color)

	since := status.Since
	status, err = live.Reload()
	require.NoError(t, err)
	require.Equal(t, 2, status.Number, "what has not changed is no new configuration")
	require.Equal(t, since, status.Since)
	require.Empty(t, status.Changed)
}

func TestARefusedReloadChangesNothingAndSaysWhy(t *testing.T) {
	live, write := open(t)
	color, err := configs.Current[kiosk](live)
	require.NoError(t, err)
	_, err = configs.NewValue(live, func(k kiosk) (int, error) {
		switch k.Color {
		case "pink":
			return 0, errors.New("kiosk.color: there is no pink paint")
		case "black":
			panic("no light")
		}
		return 0, nil
	})
	require.NoError(t, err)
	var cancelled, committed int
	require.NoError(t, configs.Follow(live, func(_, after kiosk) (configs.Change, error) {
		return configs.Change{Commit: func() { committed++ }, Cancel: func() { cancelled++ }}, nil
	}))
	require.NoError(t, configs.Follow(live, func(_, after prices) (configs.Change, error) {
		if after.Candy > 10 {
			return configs.Change{}, errors.New("kiosk.prices.candy: nobody pays that")
		}
		return configs.Change{}, nil
	}))
	for text, why := range map[string]string{
		"kiosk: {color: blue, street: Side}\nbank: {rate: 2}\n": "kiosk.street: needs a restart\n" +
			"bank.rate: needs a restart",
		"kiosk: {color: pink, prices: {candy: 11}}\n": "kiosk.color: there is no pink paint\n" +
			"kiosk.prices.candy: nobody pays that",
		"kiosk: {color: black}\n":       "preparing it panicked: no light",
		"kiosk: {prices: {paper: 0}}\n": "kiosk.prices.paper: must be positive, got 0",
		"kiosk: {colour: blue}\n":       "kiosk.colour: unknown key, did you mean kiosk.color?",
		"kiosk: [\n":                    "line 1: did not find expected node content",
	} {
		write(text)
		status, err := live.Reload()
		require.ErrorContains(t, err, why)
		require.Contains(t, status.Error, why)
		require.True(t, status.Refused())
		require.Equal(t, 1, status.Number)
		require.Equal(t, "red", color.Now().Color)
		require.Equal(t, status, live.Status())
	}
	require.Zero(t, committed)
	require.Equal(t, 2, cancelled, "what was prepared is given up: for pink and for black")

	write("kiosk: {color: blue}\n")
	_, err = live.Reload()
	require.NoError(t, err)
	require.Equal(t, 1, committed)
	require.Empty(t, live.Status().Error)
}

func TestASecretChangesLikeEverythingElseAndIsNotShown(t *testing.T) {
	live, write := open(t)
	code, err := configs.NewValue(live, func(k kiosk) (string, error) { return k.Code.Reveal(), nil })
	require.NoError(t, err)
	write("kiosk: {code: open-sesame}\n")
	status, err := live.Reload()
	require.NoError(t, err)
	require.Equal(t, "open-sesame", code.Now())
	require.NotContains(t, fmt.Sprintf("%+v", status), "sesame")
}

func TestAFollowerIsAskedOnlyAboutItsOwnSection(t *testing.T) {
	live, write := open(t)
	var seen []string
	require.NoError(t, configs.Follow(live, func(before, after prices) (configs.Change, error) {
		seen = append(seen, fmt.Sprintf("%d to %d", before.Candy, after.Candy))
		return configs.Change{}, nil
	}))
	write("kiosk: {color: blue}\n")
	_, err := live.Reload()
	require.NoError(t, err)
	require.Empty(t, seen)
	write("kiosk: {color: blue, prices: {candy: 5}}\n")
	_, err = live.Reload()
	require.NoError(t, err)
	require.Equal(t, []string{"1 to 5"}, seen)
}

func TestEveryOutcomeIsReported(t *testing.T) {
	live, write := open(t)
	var seen []configs.Status
	live.Report(func(status configs.Status) { seen = append(seen, status) })
	write("kiosk: {street: Side}\n")
	_, err := live.Reload()
	require.Error(t, err)
	write("kiosk: {color: blue}\n")
	_, err = live.Reload()
	require.NoError(t, err)
	require.Len(t, seen, 2)
	require.Equal(t, "kiosk.street: needs a restart", seen[0].Error)
	require.Equal(t, 2, seen[1].Number)
}

func TestAValueOfASectionThatTheBuildLacksIsAnError(t *testing.T) {
	live, _ := open(t)
	_, err := configs.Current[shop](live)
	require.EqualError(t, err, "no section of this build is a configs_test.shop: include the module that has it")
	require.Error(t, configs.Follow(live, func(_, _ shop) (configs.Change, error) { return configs.Change{}, nil }))
	_, err = configs.NewValue(live, func(kiosk) (int, error) { return 0, errors.New("not now") })
	require.EqualError(t, err, "not now")

	fixed := configs.Fixed(bank{Rate: 2}, prices{Paper: 9})
	rate, err := configs.Current[bank](fixed)
	require.NoError(t, err)
	require.Equal(t, bank{Rate: 2}, rate.Now())
	_, err = fixed.Reload()
	require.NoError(t, err)
	require.Equal(t, 1, fixed.View().Number())
}

// A reader that takes two values from one view always sees values of the same configuration.
func TestAViewIsOfOneConfigurationWhileOthersReload(t *testing.T) {
	live, write := open(t)
	first, err := configs.NewValue(live, func(p prices) (int, error) { return p.Paper, nil })
	require.NoError(t, err)
	second, err := configs.NewValue(live, func(p prices) (int, error) { return p.Candy, nil })
	require.NoError(t, err)
	write("kiosk: {prices: {paper: 1, candy: 1}}\n")
	_, err = live.Reload()
	require.NoError(t, err)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				view := live.View()
				if a, b := first.In(view), second.In(view); a != b {
					t.Errorf("a view has %d and %d", a, b)
					return
				}
			}
		})
	}
	for i := range 100 {
		price := strconv.Itoa(i + 2)
		write("kiosk: {prices: {paper: " + price + ", candy: " + price + "}}\n")
		_, err := live.Reload()
		require.NoError(t, err)
	}
	close(done)
	readers.Wait()
	require.Equal(t, 102, live.Status().Number)
	require.WithinDuration(t, time.Now(), live.Status().Loaded, time.Minute)
}

func TestReadingAValueCostsNoAllocation(t *testing.T) {
	live, _ := open(t)
	value, err := configs.NewValue(live, func(k kiosk) (*kiosk, error) { return &k, nil })
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if value.In(live.View()).Color != "red" {
			t.Fatal("another color")
		}
	}))
}

func TestTheReferenceMarksLiveKeys(t *testing.T) {
	text, err := configs.Reference([]configs.Section{{Name: "kiosk", Defaults: kiosk{}}})
	require.NoError(t, err)
	for _, want := range []string{
		"# The color of the door. Live.\n", "# What candy costs. Live.\n", "# Where it stands.\n",
		"# The code of the door. Secret. Live.\n",
		`A key marked "Live" changes without a restart`,
	} {
		require.Contains(t, string(text), want)
	}
}

// A part that panics while it puts its change in force leaves the others theirs, and everybody learns what is in force.
func TestAPanicWhileAConfigurationComesIntoForceIsTold(t *testing.T) {
	live, write := open(t)
	color, err := configs.Current[kiosk](live)
	require.NoError(t, err)
	committed := 0
	for _, commit := range []func(){func() { panic("no ladder") }, func() { committed++ }} {
		require.NoError(t, configs.Follow(live, func(_, _ kiosk) (configs.Change, error) {
			return configs.Change{Commit: commit}, nil
		}))
	}
	live.Report(func(configs.Status) { panic("no paper") })
	write("kiosk: {color: blue}\n")
	status, err := live.Reload()
	require.EqualError(t, err,
		"the configuration is in force, but putting a part of it in force panicked: no ladder")
	require.Equal(t, err.Error(), status.Error)
	require.False(t, status.Refused())
	require.Equal(t, 2, status.Number)
	require.Equal(t, "blue", color.Now().Color)
	require.Equal(t, 1, committed)
	require.Equal(t, status, live.Status())
}

func TestAPanicWhileAConfigurationIsLoadedOrGivenUpRefusesIt(t *testing.T) {
	live, write := open(t)
	cancelled := 0
	for _, cancel := range []func(){func() { panic("no broom") }, func() { cancelled++ }} {
		require.NoError(t, configs.Follow(live, func(_, _ kiosk) (configs.Change, error) {
			return configs.Change{Cancel: cancel}, nil
		}))
	}
	require.NoError(t, configs.Follow(live, func(_, _ kiosk) (configs.Change, error) {
		return configs.Change{}, errors.New("kiosk.color: no paint")
	}))
	write("kiosk: {color: blue}\n")
	_, err := live.Reload()
	require.EqualError(t, err, "kiosk.color: no paint\ngiving it up panicked: no broom")
	require.Equal(t, 1, cancelled)

	set := live.View().Set()
	broken := configs.NewLive(set, func() (*configs.Set, error) { panic("no file") })
	_, err = broken.Reload()
	require.EqualError(t, err, "loading it panicked: no file")
	require.Equal(t, "loading it panicked: no file", broken.Status().Error)
}

func TestWhatMayBeASecretIsNotInAFault(t *testing.T) {
	for text, fault := range map[string]string{
		"shop: {safe: *hunter2}\n": "a value begins with *, which YAML takes for the name of another value: put the " +
			"value into quotes",
		"shop: {doors: 2, safe:hunter}\n": "shop.safe: needs a space behind its colon",
	} {
		_, err := configs.Load(sections(), configs.Source{Files: []string{write(t, "f.yaml", text)}})
		require.ErrorContains(t, err, fault)
		require.NotContains(t, err.Error(), "hunter")
	}
}
