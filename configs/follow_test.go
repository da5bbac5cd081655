package configs_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
)

// Every follower commits, and sees the new view when it does.
func TestEveryFollowerCommitsWhenTheNewViewIsInForce(t *testing.T) {
	live, write := open(t)
	color, err := configs.Current[kiosk](live)
	require.NoError(t, err)
	var seen []string
	for range 3 {
		require.NoError(t, configs.Follow(live, func(_, _ kiosk) (configs.Change, error) {
			return configs.Change{Commit: func() { seen = append(seen, color.Now().Color) }}, nil
		}))
	}
	write("kiosk: {color: blue}\n")
	_, err = live.Reload()
	require.NoError(t, err)
	require.Equal(t, []string{"blue", "blue", "blue"}, seen)
}

// A follower whose prepare panics refuses the configuration, and the others give theirs up.
func TestAFollowerThatPanicsRefusesTheConfiguration(t *testing.T) {
	live, write := open(t)
	cancelled := 0
	require.NoError(t, configs.Follow(live, func(_, _ kiosk) (configs.Change, error) {
		return configs.Change{Cancel: func() { cancelled++ }}, nil
	}))
	require.NoError(t, configs.Follow(live, func(_, _ kiosk) (configs.Change, error) { panic("no light") }))
	write("kiosk: {color: blue}\n")
	_, err := live.Reload()
	require.ErrorContains(t, err, "preparing it panicked: no light")
	require.Equal(t, 1, live.View().Number())
	require.Equal(t, 1, cancelled)
}

// Two who reload at once do so one after the other.
func TestReloadsAtOnceFollowEachOther(t *testing.T) {
	live, write := open(t)
	var inside atomic.Int32
	require.NoError(t, configs.Follow(live, func(_, _ kiosk) (configs.Change, error) {
		if inside.Add(1) > 1 {
			return configs.Change{}, errors.New("two at once")
		}
		for range 1000 {
			runtime.Gosched() // a second one would come in
		}
		return configs.Change{Commit: func() { inside.Add(-1) }}, nil
	}))
	write("kiosk: {color: blue}\n")
	var reloads sync.WaitGroup
	for range 4 {
		reloads.Go(func() {
			if _, err := live.Reload(); err != nil {
				t.Error(err)
			}
		})
	}
	reloads.Wait()
	require.Equal(t, 2, live.Status().Number)
}

func TestTheDigestTellsFilesApartByTheirContentAndWhetherTheyCanBeRead(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	seen := map[[32]byte]string{}
	look := func(what string) {
		digest := configs.FilesDigest([]string{a, b})
		require.Empty(t, seen[digest], what)
		seen[digest] = what
	}
	set := func(first, second string) {
		require.NoError(t, os.WriteFile(a, []byte(first), 0o600))
		require.NoError(t, os.WriteFile(b, []byte(second), 0o600))
	}
	look("neither is there")
	set("", "")
	look("both are empty")
	set("ab", "c")
	look("ab c")
	set("a", "bc")
	look("a bc")
	set("open "+a+": no such file or directory", "bc")
	look("a text that says what an error says")
	require.NoError(t, os.Remove(a))
	look("a is gone")
	require.NoError(t, os.WriteFile(b, []byte("x"), 0o600))
	look("b alone has an x")
	require.NoError(t, os.Rename(b, a))
	look("a alone has an x")
}
