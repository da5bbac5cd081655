package powercut

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
)

// Fate says what of that survives a power cut which was not synced.
type Fate int

const (
	// Nothing is the least that a disk owes: what was synced.
	Nothing Fate = iota
	// Everything is what a process leaves that was killed.
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

// sector is what a disk writes as a whole or not at all.
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

// names decides which changes of names survive, and returns what each directory then holds.
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

// content is what survives of a file.
func (n *node) content(fate Fate, random *rand.Rand) []byte {
	content := bytes.Clone(n.synced)
	if len(n.writes) == 0 {
		return content
	}
	// longest is how long the file may have become, with zeros where nothing was written.
	longest := int64(len(content))
	luck := random.Float64()
	for _, w := range n.writes {
		longest = max(longest, w.end())
		switch {
		case fate == Everything, fate == ContentOnly:
			content = w.apply(content)
		case fate == Mixed && random.Float64() < luck:
			content = w.tear(content, random)
		}
	}
	if fate != Mixed && fate != NamesOnly || n.resized() {
		return content
	}
	// The length is written apart from the content, but what was synced is within it.
	switch least := int64(len(n.synced)); random.IntN(4) {
	case 0:
		content = resize(content, longest)
	case 1:
		content = resize(content, least+random.Int64N(longest-least+1))
	}
	return content
}

// resized reports whether the file's length was also set by a call that has not been synced.
func (n *node) resized() bool {
	return slices.ContainsFunc(n.writes, func(w *write) bool { return w.resize })
}

// tear applies a part of the write: all of it, its beginning, or any of its sectors.
func (w *write) tear(content []byte, random *rand.Rand) []byte {
	if w.resize || len(w.data) == 0 {
		return w.apply(content)
	}
	first, last := w.at/sector, (w.end()-1)/sector
	keep := func(int64) bool { return true }
	switch random.IntN(4) {
	case 0:
		end := first + random.Int64N(last-first+1)
		keep = func(s int64) bool { return s < end }
	case 1:
		keep = func(int64) bool { return random.IntN(2) == 0 }
	}
	for s := first; s <= last; s++ {
		if keep(s) {
			from, to := max(s*sector, w.at), min((s+1)*sector, w.end())
			part := write{at: from, data: w.data[from-w.at : to-w.at]}
			content = part.apply(content)
		}
	}
	return content
}
