package auth

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/private"
	"github.com/opencapture/capture/modules/store"
)

// replicated returns a configuration with a replica in a directory that does not exist yet.
func replicated(t *testing.T) (c Config, path string) {
	t.Helper()
	c = config(ModeStrict)
	c.OnStoreFailure = store.FailClosed
	c.Replica = filepath.Join(t.TempDir(), "auth", "projects.json")
	return c, c.Replica
}

// run starts an Auth, calls during, and stops it.
func run(t *testing.T, c Config, state *shared, during func(*Auth)) {
	t.Helper()
	auth, _ := newAuthOf(t, c, state)
	require.NoError(t, auth.Start(t.Context()))
	during(auth)
	require.NoError(t, auth.Stop(t.Context()))
}

func TestANodeStartsWithItsProjectsWhileTheStoreIsAway(t *testing.T) {
	c, path := replicated(t)
	run(t, c, projects(), func(auth *Auth) {
		for _, token := range []string{"phc_free", "phc_limited", "phc_office", "phc_nobody", "phc_off"} {
			_ = auth.Admit(t.Context(), callerOf(token))
		}
	})
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	require.NoError(t, err)
	require.Equal(t, []string{path}, left, "nothing else is left")

	away := newShared()
	away.fail(store.ErrUnavailable)
	run(t, c, away, func(auth *Auth) {
		caller := callerOf("phc_limited")
		require.Empty(t, reasonOf(t, auth, caller))
		require.Equal(t, "events=5/day", caller.Project.Limits.Quotas[0].String())
		require.Equal(t, events.ReasonDisabled, reasonOf(t, auth, callerOf("phc_off")))
		require.Equal(t, events.ReasonStore, reasonOf(t, auth, callerOf("phc_nobody")))
	})
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(before), "phc_free", "what is not used now is kept as well")

	// The store is there again, and knows better.
	state := projects()
	state.write("phc_free", nil)
	run(t, c, state, func(auth *Auth) {
		require.Equal(t, events.ReasonUnknownToken, reasonOf(t, auth, callerOf("phc_free")))
	})
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(after), "phc_free")
	require.Contains(t, string(after), "phc_limited")
}

func TestTheReplicaIsWrittenNowAndThenAndOnlyIfThereIsSomethingNew(t *testing.T) {
	c, path := replicated(t)
	synctest.Test(t, func(t *testing.T) {
		state := projects()
		run(t, c, state, func(auth *Auth) {
			require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
			time.Sleep(saveEvery + time.Second)
			synctest.Wait()
			saved := auth.status().Replica.Saved
			require.NotNil(t, saved)
			for range 10 {
				time.Sleep(time.Minute)
				require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
			}
			require.Equal(t, saved, auth.status().Replica.Saved)
			state.put("phc_free", store.Fields{"id": "9"})
			time.Sleep(saveEvery + time.Second)
			synctest.Wait()
			require.True(t, auth.status().Replica.Saved.After(*saved))
		})
	})
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.JSONEq(t, `{"version":1,"projects":[{"token":"phc_free","from":"store","fields":{"id":"9"}}]}`,
		string(text))
}

func TestAReplicaThatCannotBeUsedKeepsNobodyFromStarting(t *testing.T) {
	holding := func(text string) func(*testing.T, string) {
		return func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	}
	for about, damage := range map[string]func(t *testing.T, path string){
		"cut":               holding(`{"ver`),
		"of another format": holding(`{"version":2}`),
		"of no format":      holding(`{"projects":[{"token":"phc_evil"}]}`),
		"a directory":       func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) },
		"open to all": func(t *testing.T, path string) {
			holding(`{"version":1,"projects":[{"token":"phc_evil"}]}`)(t, path)
			require.NoError(t, os.Chmod(filepath.Dir(path), 0o777))
		},
	} {
		c, path := replicated(t)
		require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
		damage(t, path)
		core, logs := observer.New(zap.WarnLevel)
		auth, err := New(configs.Fixed(c), projects(), true, nil, zap.New(core), tally.NoopScope)
		require.NoError(t, err)
		require.NoError(t, auth.Start(t.Context()), about)
		require.Equal(t, 1, logs.Len(), about)
		require.Equal(t, events.ReasonUnknownToken, reasonOf(t, auth, callerOf("phc_evil")), about)
		require.Empty(t, reasonOf(t, auth, callerOf("phc_free")), about)
		require.NoError(t, auth.Stop(t.Context()))
	}
}

func TestAProjectOfTheReplicaThatHasFaultsIsLeftOut(t *testing.T) {
	c, path := replicated(t)
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(`{"version":1,"projects":[{"token":"phc_free","fields":{"x":"1"}},`+
		`{"token":"phx_a"},{"token":" phc_b"},{"token":"phc_office","from":"store","fields":{"id":"7"}}]}`), 0o600))
	state := newShared()
	state.fail(store.ErrUnavailable)
	run(t, c, state, func(auth *Auth) {
		require.Equal(t, 1, auth.directory.known.Len())
		require.Empty(t, reasonOf(t, auth, callerOf("phc_office")))
	})
}

// A directory that cannot be written keeps the replica out, and the operator is told.
func TestAReplicaThatCannotBeWrittenIsToldOf(t *testing.T) {
	c, path := replicated(t)
	require.NoError(t, os.WriteFile(filepath.Dir(path), nil, 0o600)) // a file in the place of the directory
	core, logs := observer.New(zap.WarnLevel)
	auth, err := New(configs.Fixed(c), projects(), true, nil, zap.New(core), tally.NoopScope)
	require.NoError(t, err)
	require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
	auth.save()
	require.Equal(t, 1, logs.Len())
	require.NotEmpty(t, auth.status().Replica.Error)
	require.NoError(t, os.Remove(filepath.Dir(path)))
	auth.save()
	require.Empty(t, auth.status().Replica.Error)
	require.NoError(t, private.Check(filepath.Dir(path)))

	// What cannot take the place of the file is removed.
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	require.Empty(t, reasonOf(t, auth, callerOf("phc_site")))
	auth.save()
	require.NotEmpty(t, auth.status().Replica.Error)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestTheEndpointTellsWhoMaySend(t *testing.T) {
	c, path := replicated(t)
	c.Projects = configs.FilesOf(configs.File{Path: "a.yaml", Data: []byte("phc_a:\nphc_b:\n")})
	auth, _ := newAuthOf(t, c, projects())
	_ = auth.Admit(t.Context(), callerOf("phc_free"))
	_ = auth.Admit(t.Context(), callerOf("phc_isbroken"))
	recorder := httptest.NewRecorder()
	auth.Endpoint().Handler.ServeHTTP(recorder, httptest.NewRequest("GET", "/admin/auth", nil))
	var shown struct {
		Mode           string
		OnStoreFailure string `json:"on_store_failure"`
		Files, Kept    int
		Authenticators []string
		Broken         []struct{ Token, Faults string }
		Replica        struct{ Path string }
	}
	require.NoError(t, json.Unmarshal(recorder.Body.Bytes(), &shown))
	require.Equal(t, "strict", shown.Mode)
	require.Equal(t, "closed", shown.OnStoreFailure)
	require.Equal(t, 2, shown.Files)
	require.Equal(t, 1, shown.Kept)
	require.Equal(t, []string{"store", "posthog"}, shown.Authenticators)
	require.Equal(t, []struct{ Token, Faults string }{
		{"phc_isbroken", `enabled: must be true or false, got "perhaps"`},
	}, shown.Broken)
	require.Equal(t, path, shown.Replica.Path)
}
