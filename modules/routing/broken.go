package routing

import (
	"maps"
	"slices"

	"go.uber.org/zap"
)

// broken has the rules of a source that have faults.
type broken struct {
	faults map[string]string // by the id of the rule
	told   map[string]string
}

func (b *broken) add(id string, err error) {
	if b.faults == nil {
		b.faults = map[string]string{}
	}
	b.faults[id] = err.Error()
}

// tell logs the faults that the log does not have yet, up to maxTold of them.
func (b *broken) tell(log *zap.Logger) {
	lines := 0
	for _, id := range slices.Sorted(maps.Keys(b.faults)) {
		if fault := b.faults[id]; b.told[id] != fault && lines < maxTold {
			lines++
			log.Warn("a rule has faults and is not in force: see GET /admin/routing", zap.String("rule", id),
				zap.String("faults", fault))
		}
	}
	b.told = b.faults
}

// maxTold is how many broken rules are logged at once, and shown to operators.
const maxTold = 100

// list returns the first of the faults, for people.
func (b *broken) list() (all []Broken) {
	for _, id := range slices.Sorted(maps.Keys(b.faults)) {
		if len(all) == maxTold {
			break
		}
		all = append(all, Broken{Rule: id, Faults: b.faults[id]})
	}
	return all
}
