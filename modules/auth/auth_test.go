package auth

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/transport/route"
)

// projects are records for each level.
func projects() *shared {
	s := newShared()
	s.records = map[string]store.Fields{
		"phc_free":    {"id": "1"},
		"phc_off":     {"enabled": "false"},
		"phc_replay":  {"endpoints": "recordings"},
		"phc_site":    {"origins": "https://shop.example"},
		"phc_web":     {"origins": "https://shop.example", "require_origin": "true"},
		"phc_office":  {"networks": "192.0.2.0/24"},
		"phc_nowhere": {"networks": "198.51.100.0/24"},
		"phc_webnowhere": {
			"origins": "https://shop.example", "require_origin": "true", "networks": "198.51.100.0/24",
		},
		"phc_scoped":   {"scopes": "events, ai"},
		"phc_old":      {"scopes": "events, historical"},
		"phc_limited":  {"quotas": "events=5/day"},
		"phc_isbroken": {"enabled": "perhaps"},
	}
	return s
}

func TestARequestMeetsTheLevelsInTheirOrder(t *testing.T) {
	auth, scope := newAuthOf(t, config(ModeStrict), projects())
	origin := func(c *events.Caller, value string) *events.Caller {
		c.Header = func(name string) string {
			require.Equal(t, "Origin", name)
			return value
		}
		return c
	}
	group := func(c *events.Caller, group route.Group) *events.Caller {
		c.Group = string(group)
		return c
	}
	for _, test := range []struct {
		caller *events.Caller
		want   events.Reason
	}{
		{callerOf("phc_free"), ""},
		{callerOf("phc_nobody"), events.ReasonUnknownToken},
		{callerOf("phc_isbroken"), events.ReasonUnknownToken},
		{callerOf("phc_off"), events.ReasonDisabled},
		{callerOf("phc_replay"), events.ReasonOutOfScope},
		{group(callerOf("phc_replay"), route.Recordings), ""},
		{group(callerOf("phc_replay"), "of a module outside"), ""},
		{callerOf("phc_site"), ""},
		{origin(callerOf("phc_site"), "https://SHOP.example:443"), ""},
		{origin(callerOf("phc_site"), "https://other.example"), events.ReasonOrigin},
		{callerOf("phc_web"), events.ReasonOrigin},
		{origin(callerOf("phc_web"), "https://shop.example"), ""},
		{callerOf("phc_office"), ""},
		{callerOf("phc_nowhere"), events.ReasonNetwork},
		{callerOf("phc_webnowhere"), events.ReasonOrigin},
		{origin(callerOf("phc_webnowhere"), "https://shop.example"), events.ReasonNetwork},
		{callerOf(""), ""},
	} {
		require.Equal(t, test.want, reasonOf(t, auth, test.caller), "%s", test.caller.Token)
		require.Equal(t, test.want == "" && test.caller.Token != "", test.caller.Project != nil, test.caller.Token)
	}
	require.EqualValues(t, 2, counted(scope, "refused_total+reason=unknown_token"))
	require.EqualValues(t, 3, counted(scope, "refused_total+reason=origin_not_allowed"))
	require.EqualValues(t, 14, counted(scope, "requests_total+project=known"))

	caller := callerOf("phc_limited")
	require.NoError(t, auth.Admit(t.Context(), caller))
	require.Equal(t, []events.Quota{{Resource: events.ResourceEvents, Period: events.PerDay, Limit: 5}},
		caller.Project.Limits.Quotas)
	require.EqualError(t, auth.Admit(t.Context(), callerOf("phc_nobody")), "API key does not belong to any project. "+
		"Check the project API key in your PostHog project settings", "in PostHog's words")
}

func TestTheModeDecidesAboutTokensOfNoProject(t *testing.T) {
	for mode, want := range map[string]events.Reason{
		ModeOpen: "", ModeKnown: "", ModeStrict: events.ReasonUnknownToken,
	} {
		auth, scope := newAuthOf(t, config(mode), projects())
		caller := callerOf("phc_nobody")
		require.Equal(t, want, reasonOf(t, auth, caller), mode)
		require.Nil(t, caller.Project)
		require.EqualValues(t, 1, counted(scope, "requests_total+project=unknown"))
		require.Equal(t, events.ReasonDisabled, reasonOf(t, auth, callerOf("phc_off")), "in every mode")

		batch := &events.Batch{Token: "phc_nobody", Events: make([]events.Event, 2)}
		_, err := auth.Process(t.Context(), batch)
		require.NoError(t, err)
		for _, event := range batch.Events {
			require.True(t, event.Pending())
			require.Equal(t, mode == ModeKnown, event.Notes.Has(events.NoteUnknownToken), mode)
		}
	}
}

// The mode known is the dry run of strict: the log tells what strict would refuse.
func TestTheLogTellsOfTokensOfNoProject(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	auth, err := New(configs.Fixed(config(ModeKnown)), projects(), false, nil, zap.New(core), tally.NoopScope)
	require.NoError(t, err)
	auth.tell()
	require.Zero(t, logs.Len())
	for _, token := range []string{"phc_nobody", "phc_nobody", "phc_free", "phc_other"} {
		require.NoError(t, auth.Admit(t.Context(), callerOf(token)))
	}
	auth.tell()
	auth.tell()
	require.Equal(t, 1, logs.Len())
	require.Equal(t, map[string]any{"requests": int64(3), "one_of_the_tokens": "phc_nobody"},
		logs.All()[0].ContextMap())
}

func TestWithoutTheStoreTheConfigurationDecidesAboutProjectsThatAreNotKnown(t *testing.T) {
	for _, mode := range []string{ModeOpen, ModeKnown, ModeStrict} {
		for failure, want := range map[string]events.Reason{
			store.FailOpen: "", store.FailClosed: events.ReasonStore,
		} {
			c := config(mode)
			c.OnStoreFailure = failure
			state := projects()
			auth, scope := newAuthOf(t, c, state)
			require.Empty(t, reasonOf(t, auth, callerOf("phc_free")))
			state.fail(store.ErrUnavailable)
			require.Empty(t, reasonOf(t, auth, callerOf("phc_free")), "it is known")
			err := auth.Admit(t.Context(), callerOf("phc_new"))
			require.Equal(t, want != "", err != nil)
			if want != "" {
				require.Equal(t, events.Unavailable, events.CodeOf(err))
				require.Equal(t, want, events.ReasonOf(err, ""))
			}
			require.EqualValues(t, 1, counted(scope, "requests_total+project=unsure"))
			require.EqualValues(t, 1, counted(scope, "lookups_total+outcome=failed"))
			require.Equal(t, failure == store.FailClosed, auth.StoreUser().Closed())

			state.fail(nil)
			require.Equal(t, mode == ModeStrict, reasonOf(t, auth, callerOf("phc_new")) != "",
				"what nobody could say is not remembered")
		}
	}
}

func TestEventsOutOfScopeAreRejectedAndTheOthersAreKept(t *testing.T) {
	auth, _ := newAuthOf(t, config(ModeOpen), projects())
	process := func(token string, historical bool) []events.Event {
		caller := callerOf(token)
		require.NoError(t, auth.Admit(t.Context(), caller))
		batch := &events.Batch{Token: token, Project: caller.Project, Historical: historical, Events: []events.Event{
			{Name: "$pageview"}, {Name: "$exception"}, {Name: "$ai_span"}, {Lane: events.LaneRecordings},
			{Name: "late"},
		}}
		batch.Events[4].Drop(events.ReasonRule)
		settle, err := auth.Process(t.Context(), batch)
		require.NoError(t, err)
		require.Nil(t, settle)
		require.Equal(t, events.ReasonRule, batch.Events[4].Outcome.Reason, "it had ended before")
		return batch.Events[:4]
	}
	for i, event := range process("phc_scoped", false) {
		if i == 0 || i == 2 {
			require.True(t, event.Pending())
			continue
		}
		require.Equal(t, events.StateRejected, event.Outcome.State)
		require.Equal(t, events.ReasonOutOfScope, event.Outcome.Reason)
		require.Equal(t, events.Forbidden, events.CodeOf(event.Outcome.Err))
	}
	require.EqualError(t, process("phc_scoped", false)[1].Outcome.Err,
		"the project of this API key takes no events of the kind exceptions")
	for _, event := range process("phc_scoped", true) {
		require.EqualError(t, event.Outcome.Err, "the project of this API key takes no migrations of old events")
	}
	require.True(t, process("phc_old", true)[0].Pending())
	for _, event := range process("phc_free", true) {
		require.True(t, event.Pending())
	}
}

// A request is judged by one configuration from beginning to end.
func TestFilesOfProjectsFollowTheConfiguration(t *testing.T) {
	section := config(ModeStrict)
	load := func() (*configs.Set, error) {
		return configs.Load([]configs.Section{{Name: "auth", Defaults: section}}, configs.Source{})
	}
	section.Projects = configs.FilesOf(configs.File{Path: "a.yaml", Data: []byte("phc_a: {id: 1}\n")})
	set, err := load()
	require.NoError(t, err)
	live := configs.NewLive(set, load)
	auth, err := New(live, newShared(), false, nil, zap.NewNop(), tally.NoopScope)
	require.NoError(t, err)
	before := live.View()
	require.Empty(t, reasonOf(t, auth, callerOf("phc_a")))
	require.Equal(t, "tokens of projects only, of which 1 are in files (auth.mode: strict)", auth.StartFact().Text())

	section.Projects = configs.FilesOf(configs.File{Path: "a.yaml", Data: []byte("phc_b: {id: 2}\n")})
	_, err = live.Reload()
	require.NoError(t, err)
	require.Equal(t, events.ReasonUnknownToken, reasonOf(t, auth, callerOf("phc_a")))
	caller := callerOf("phc_b")
	require.Empty(t, reasonOf(t, auth, caller))
	require.Equal(t, "2", caller.Project.ID)
	caller = callerOf("phc_a")
	caller.Config = before
	require.Empty(t, reasonOf(t, auth, caller))

	section.Projects = configs.FilesOf(configs.File{Path: "a.yaml", Data: []byte("phc_b: {ids: 2}\n")})
	_, err = live.Reload()
	require.ErrorContains(t, err, `auth.projects: a.yaml, line 1: the project "phc_b": ids: is no field of a project: `+
		"did you mean id?")
	require.Empty(t, reasonOf(t, auth, callerOf("phc_b")), "the one before stays in force")
}

func TestAFileGoesBeforeTheStore(t *testing.T) {
	c := config(ModeOpen)
	c.Projects = configs.FilesOf(configs.File{Path: "a.yaml", Data: []byte("phc_off: {enabled: true}\n")})
	state := projects()
	auth, _ := newAuthOf(t, c, state)
	require.Empty(t, reasonOf(t, auth, callerOf("phc_off")))
	require.Zero(t, state.asked())
}

func TestAKnownProjectCostsNoAllocation(t *testing.T) {
	auth, _ := newAuthOf(t, config(ModeStrict), projects())
	for _, token := range []string{"phc_free", "phc_office", "phc_nobody"} {
		caller := callerOf(token)
		_ = auth.Admit(t.Context(), caller)
		require.Zero(t, testing.AllocsPerRun(100, func() { _ = auth.Admit(t.Context(), caller) }), token)
	}
	batch := &events.Batch{Project: &events.Project{}, Events: make([]events.Event, 50)}
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = auth.Process(t.Context(), batch) }))
	batch.Project = &events.Project{Scopes: events.ScopeOf(events.ResourceEvents)}
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = auth.Process(t.Context(), batch) }))
}

func BenchmarkAKnownProject(b *testing.B) {
	auth, _ := newAuthOf(b, config(ModeStrict), projects())
	caller := callerOf("phc_free")
	b.ReportAllocs()
	for b.Loop() {
		_ = auth.Admit(b.Context(), caller)
	}
}

func BenchmarkAKnownProjectOnAllCores(b *testing.B) {
	auth, _ := newAuthOf(b, config(ModeStrict), projects())
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		caller := callerOf("phc_free")
		for p.Next() {
			_ = auth.Admit(b.Context(), caller)
		}
	})
}

func BenchmarkATokenOfNoProject(b *testing.B) {
	auth, _ := newAuthOf(b, config(ModeStrict), projects())
	caller := callerOf("phc_nobody")
	b.ReportAllocs()
	for b.Loop() {
		_ = auth.Admit(b.Context(), caller)
	}
}

func BenchmarkScopesOfABatchOf50(b *testing.B) {
	auth, _ := newAuthOf(b, config(ModeStrict), projects())
	batch := &events.Batch{Project: &events.Project{Scopes: events.ScopeOf(events.ResourceEvents)},
		Events: make([]events.Event, 50)}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = auth.Process(b.Context(), batch)
	}
}
