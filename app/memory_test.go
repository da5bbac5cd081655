package app

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
)

// holder is the section of a module that holds a half of the process's memory, or what it is told.
type holder struct {
	Room configs.ByteSize `key:"room" doc:"Bytes; negative: without a bound."`
}

func (h holder) MemoryBudget(_ *configs.Set, limit int64) int64 {
	switch {
	case h.Room < 0:
		return configs.Unbounded
	case h.Room == 0:
		return limit / 2
	default:
		return int64(h.Room)
	}
}

func planOf(t *testing.T, outside given, own, room string) memoryPlan {
	modules := []module.Module{{Name: "holder", Config: holder{}}, {Name: "other"}}
	set, err := Load(modules, configs.Source{Environ: []string{
		"CAPTURE_HOLDER__ROOM=" + room, "CAPTURE_APP__MEMORY_LIMIT=" + own,
	}})
	require.NoError(t, err)
	return planMemory(modules, set, outside)
}

func TestTheMemoryLimitIsThatOfTheEnvironmentThenOfTheKeyThenOfTheCgroup(t *testing.T) {
	cgroup := given{900 << 20, "90% of the cgroup's 1000MiB"}
	for name, test := range map[string]struct {
		outside   given
		own, room string
		want      string
	}{
		"GOMEMLIMIT": {given{800 << 20, fromEnvironment}, "700MiB", "100MiB",
			"limit 800MiB (GOMEMLIMIT), of which clients can fill 100MiB"},
		"the key": {cgroup, "700MiB", "100MiB", "limit 700MiB (app.memory_limit), of which clients can fill 100MiB"},
		"the cgroup": {cgroup, "0", "100MiB",
			"limit 900MiB (90% of the cgroup's 1000MiB), of which clients can fill 100MiB"},
		"a share of the cgroup": {cgroup, "0", "0",
			"limit 900MiB (90% of the cgroup's 1000MiB), of which clients can fill 450MiB"},
		"the budgets": {given{}, "0", "100MiB",
			"limit 140MiB (the modules' budgets), of which clients can fill 100MiB"},
		"a module without a bound": {given{}, "0", "-1",
			"no limit, since the embedded broker keeps its messages in memory"},
		"a module without a bound, in a cgroup": {cgroup, "0", "-1",
			"limit 900MiB (90% of the cgroup's 1000MiB), of which clients can fill 0B"},
		"nobody": {given{}, "0", "0", ""},
	} {
		require.Equal(t, test.want, planOf(t, test.outside, test.own, test.room).String(), name)
	}
}

func TestABudgetThatIsLargerThanTheMemoryLimitIsAFault(t *testing.T) {
	modules := []module.Module{{Name: "holder", Config: holder{Room: 200 << 20}}}
	_, err := Load(modules, configs.Source{Environ: []string{"CAPTURE_APP__MEMORY_LIMIT=200MiB"}})
	require.ErrorContains(t, err, "app.memory_limit: is 200MiB, but clients can fill 200MiB (transport.max_in_flight, "+
		"delivery.buffer) and the process itself needs 40MiB: raise it, or lower theirs")
	_, err = Load(modules, configs.Source{Environ: []string{"CAPTURE_APP__MEMORY_LIMIT=256MiB"}})
	require.NoError(t, err)
	require.False(t, planOf(t, given{200 << 20, fromEnvironment}, "0", "200MiB").fits(), "a warning at start")
}
