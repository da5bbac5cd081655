package powercut

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
)

// Fate says which of the changes that were not synced survive a power cut.
type Fate int

const (
	// Nothing is the least that a disk owes: only what was synced.
	Nothing Fate = iota
	// Everything is what a killed process leaves.
	Everything
	// NamesOnly has every change of names but no content.
	NamesOnly
	// ContentOnly has all content but no change of names.
	ContentOnly
	// Mixed has any of the changes of names, and any part of the content.
	Mixed
)

// String names the fate.
func (f Fate) String() string {
	return [...]string{"nothing", "everything", "names only", "content only", "mixed"}[f]
}

// sector is the number of bytes that a disk writes as a whole or not at all. The disk writes the state of the sector in
// the page cache at some moment, so a later write to a sector comes with all earlier ones to it.
const sector = 512

// After returns a directory that a power cut may leave at this moment. The same random numbers give the same directory.
func (d *Disk) After(fate Fate, random *rand.Rand) Tree {
	names := d.names(fate, random)
	tree := Tree{}
	// A file that has several names has one content.
	contents := map[*node][]byte{}
	var lay func(dir *node, path string)
	lay = func(dir *node, path string) {
		for _, name := range slices.Sorted(maps.Keys(names(dir))) {
			n, path := names(dir)[name], filepath.Join(path, name)
			if n.isDirectory() {
				tree[path+"/"] = nil
				lay(n, path)
				continue
			}
			if _, done := contents[n]; !done {
				contents[n] = n.content(fate, random)
			}
			tree[path] = contents[n]
		}
	}
	lay(d.top, "")
	return tree
}

// names decides which changes of names survive, and returns the names that each directory then holds.
func (d *Disk) names(fate Fate, random *rand.Rand) func(*node) map[string]*node {
	changed := map[*node]map[string]*node{}
	survives := func(int) bool { return fate == Everything || fate == NamesOnly }
	if fate == Mixed {
		luck := random.Float64()
		survives = func(int) bool { return random.Float64() < luck }
		if d.Journal {
			first := random.IntN(len(d.changes) + 1)
			survives = func(i int) bool { return i < first }
		}
	}
	for i, c := range d.changes {
		if !survives(i) {
			continue
		}
		for _, e := range c.effects {
			if changed[e.dir] == nil {
				changed[e.dir] = maps.Clone(e.dir.durable)
			}
			if e.node == nil {
				delete(changed[e.dir], e.name)
			} else {
				changed[e.dir][e.name] = e.node
			}
		}
	}
	return func(dir *node) map[string]*node {
		if names, ok := changed[dir]; ok {
			return names
		}
		return dir.durable
	}
}

// content returns the part of a file's content that survives.
func (n *node) content(fate Fate, random *rand.Rand) []byte {
	content := bytes.Clone(n.synced)
	if len(n.writes) == 0 {
		return content
	}
	resized := slices.ContainsFunc(n.writes, func(w *write) bool { return w.resize })
	longest := int64(len(content))
	for _, w := range n.writes {
		longest = max(longest, w.end())
	}
	switch fate {
	case Everything, ContentOnly:
		for _, w := range n.writes {
			content = w.apply(content)
		}
		return content
	case Mixed:
		content = n.mix(content, random)
	}
	if fate == Nothing || resized {
		return content
	}
	// The disk writes the length apart from the content. So there may be zeros where nothing was written, and written
	// bytes may lie beyond the end. The synced bytes lie within the length.
	switch least := int64(len(n.synced)); random.IntN(4) {
	case 0:
		content = resize(content, longest)
	case 1:
		content = resize(content, least+random.Int64N(longest-least+1))
	}
	return content
}

// mix gives each sector, independently of the others, one of the states that it has had in the page cache since its
// last sync. Only the changes of the length that a call has asked for happen in the order of the calls.
func (n *node) mix(content []byte, random *rand.Rand) []byte {
	writes := n.writes
	// Sometimes every write up to a random one is there whole, so that only that write and those behind it are torn.
	if random.IntN(2) == 0 {
		whole := random.IntN(len(writes) + 1)
		for _, w := range writes[:whole] {
			content = w.apply(content)
		}
		writes = writes[whole:]
	}
	for len(writes) > 0 {
		end := slices.IndexFunc(writes, func(w *write) bool { return w.resize })
		if end == 0 {
			if random.IntN(2) == 0 {
				return content
			}
			content, writes = writes[0].apply(content), writes[1:]
			continue
		}
		if end < 0 {
			end = len(writes)
		}
		content = tear(content, writes[:end], random)
		writes = writes[end:]
	}
	return content
}

// tear applies to every sector a random number of the writes that touch it, beginning with the first.
func tear(content []byte, writes []*write, random *rand.Rand) []byte {
	luck := random.Float64()
	prefix := random.IntN(2) == 0
	touching := map[int64]int{}
	for _, w := range writes {
		for s := w.at / sector; s*sector < w.end(); s++ {
			touching[s]++
		}
	}
	// states counts, by sector, how many of the writes that touch the sector are still to be applied.
	states := map[int64]int{}
	for i, s := range slices.Sorted(maps.Keys(touching)) {
		switch {
		case prefix && float64(i) < luck*float64(len(touching)):
			states[s] = touching[s]
		case !prefix && random.Float64() < luck:
			states[s] = 1 + random.IntN(touching[s])
		}
	}
	for _, w := range writes {
		for s := w.at / sector; s*sector < w.end(); s++ {
			if states[s] == 0 {
				continue
			}
			states[s]--
			from, to := max(s*sector, w.at), min((s+1)*sector, w.end())
			part := write{at: from, data: w.data[from-w.at : to-w.at]}
			content = part.apply(content)
		}
	}
	return content
}
