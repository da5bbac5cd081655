package configs

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// fileEntry begins an entry of a List that names a file.
const fileEntry = "file:"

// List is a list of texts, of which some may stand in files. The entry "file:/etc/capture/cloudflare.txt" stands for
// the lines of that file: a text a line, without the white space around it; a # begins a comment. Load reads the file.
// So a List whose file has changed is another value, and Live exchanges the configuration as if the key had changed.
type List struct {
	entries []string
	items   []Item
}

// Item is one text of a List.
type Item struct {
	Text string
	// File is the entry that names the file, and Line the line in which the text stands there. File is empty for a text
	// that is an entry itself.
	File string
	Line int
}

// Name is what a fault calls the item. It shows no text of a file, because a wrong file may hold secrets.
func (i Item) Name() string {
	if i.File == "" {
		return i.Text
	}
	return i.File + ", line " + strconv.Itoa(i.Line)
}

// ListOf returns a list of these texts.
func ListOf(texts ...string) List {
	l := List{entries: texts}
	for _, text := range texts {
		l.items = append(l.items, Item{Text: text})
	}
	return l
}

// Items returns the texts in their order.
func (l List) Items() []Item { return l.items }

// read takes the items from the entries and from the files that they name. The list keeps its items if a file cannot be
// read, or holds nothing.
func (l *List) read(files *namedFiles) error {
	var items []Item
	var faults Faults
	for _, entry := range l.entries {
		path, isFile := strings.CutPrefix(entry, fileEntry)
		if !isFile {
			items = append(items, Item{Text: entry})
			continue
		}
		content := files.get(path)
		if content.err != nil {
			faults.Addf(entry, "cannot be read: %s", content.err)
			continue
		}
		before, number := len(items), 0
		for line := range strings.Lines(string(content.data)) {
			number++
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line != "" {
				items = append(items, Item{Text: line, File: entry, Line: number})
			}
		}
		faults.Check(len(items) > before, entry, "holds nothing but comments")
	}
	if err := faults.Err(); err != nil {
		return err
	}
	l.items = items
	return nil
}

// namedFiles are the files that entries of lists name. It is safe for concurrent use.
type namedFiles struct {
	mu    sync.Mutex
	files map[string]contents
	used  map[string]bool
}

// again returns the same files with what they hold now.
func (n *namedFiles) again() *namedFiles {
	next := &namedFiles{files: map[string]contents{}, used: map[string]bool{}}
	if n == nil {
		return next
	}
	n.mu.Lock()
	before := maps.Clone(n.files)
	n.mu.Unlock()
	for path, content := range before {
		next.files[path] = readContents(path, &content)
	}
	return next
}

// get returns what a file holds. It reads the file unless again has.
func (n *namedFiles) get(path string) contents {
	n.mu.Lock()
	defer n.mu.Unlock()
	content, known := n.files[path]
	if !known {
		content = readContents(path, nil)
		n.files[path] = content
	}
	n.used[path] = true
	return content
}

// forget forgets the files that nobody has asked for.
func (n *namedFiles) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.files, func(path string, _ contents) bool { return !n.used[path] })
}

// contents returns what the files hold, in the order of their paths.
func (n *namedFiles) contents() []contents {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []contents
	for _, path := range slices.Sorted(maps.Keys(n.files)) {
		all = append(all, n.files[path])
	}
	return all
}
