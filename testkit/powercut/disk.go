package powercut

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Disk knows what a directory holds in the page cache, and which part of that is certain to be on the disk. Apply has
// it follow the steps of the programs that use the directory, one program after the other.
type Disk struct {
	// Journal says that the disk's file system behaves like ext4 and XFS, and not only as POSIX requires. Names change
	// in the order of the calls. A sync of a new file makes the file's name durable, with every change of a name before
	// that.
	Journal bool

	root    string // absolute
	top     *node
	changes []*change // of names that are not durable, in the order in which they began

	run     int
	handles map[int64]*handle
	// ends holds, for each call that has begun, what the call does at its end.
	ends map[*Call]func()
	// halves are the writes of the present process whose end the process may not see.
	halves []half
}

// half is a write that was not answered.
type half struct {
	call  *Call
	write *write
	node  *node
	path  string
}

// node is a file or a directory.
type node struct {
	// names holds the nodes in the directory, and durable those that are certain to survive. Both are nil for a file.
	names, durable map[string]*node

	// synced is the certain part of the file's content. writes are the changes on top of it, in the order in which they
	// began.
	synced []byte
	writes []*write
	// size is the file's length in the page cache.
	size int64
}

// write is a change of a file's content that is not durable.
type write struct {
	at   int64
	data []byte
	// resize says that the file's length becomes at, and that no data is written.
	resize bool
	// ended says that the call has returned: a sync that begins now makes the write durable.
	ended bool
}

// change is a change of names that happens as a whole.
type change struct {
	effects []effect
	ended   bool
}

// effect gives a name in a directory to a node, or takes the name away if node is nil.
type effect struct {
	dir  *node
	name string
	node *node
	path string // for humans
}

// handle is an open file.
type handle struct {
	*node
	path     string
	position int64
	append   bool
}

// NewDisk returns a disk that holds the present content of the directory root, all of it durable.
func NewDisk(root string) (*Disk, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	tree, err := ReadTree(root)
	if err != nil {
		return nil, err
	}
	return newDisk(root, tree)
}

// newDisk returns a disk that holds a tree in the directory root.
func newDisk(root string, tree Tree) (*Disk, error) {
	d := &Disk{root: root, top: newDirectory(), run: -1, ends: map[*Call]func(){}}
	for _, path := range slices.Sorted(maps.Keys(tree)) {
		dir, name, err := d.parent(filepath.Join(root, path))
		if err != nil {
			return nil, err
		}
		n := newDirectory()
		if !isDirectory(path) {
			n = &node{synced: slices.Clone(tree[path]), size: int64(len(tree[path]))}
		}
		dir.names[name], dir.durable[name] = n, n
	}
	return d, nil
}

func newDirectory() *node { return &node{names: map[string]*node{}, durable: map[string]*node{}} }

func (n *node) isDirectory() bool { return n.names != nil }

// Apply follows a step, and reports whether the step is about the directory. The error says that the step may do
// something to the directory that the disk does not know.
func (d *Disk) Apply(step Step) (mine bool, err error) {
	if step.Ended {
		end, mine := d.ends[step.Call]
		delete(d.ends, step.Call)
		if mine && end != nil {
			end()
		}
		return mine, nil
	}
	if step.Run != d.run {
		// The process before has ended: bytes that it had not written to the page cache are gone, and its files are
		// closed.
		d.run, d.handles, d.halves = step.Run, map[int64]*handle{}, nil
		clear(d.ends)
	}
	end, mine, err := d.begin(step.Call)
	if err != nil {
		return mine, fmt.Errorf("%s: %w", step, err)
	}
	if mine {
		d.ends[step.Call] = end
	}
	return mine, nil
}

var (
	errUnknown = errors.New("the model does not know what this does")
	errMissing = errors.New("the model does not have this file")
)

// begin returns what the call does at its end, and whether the call is about the directory.
func (d *Disk) begin(c *Call) (end func(), mine bool, err error) {
	if c.Failed && c.Name != "close" {
		return nil, false, nil
	}
	switch c.Name {
	case "open", "openat", "openat2", "creat":
		return d.open(c)
	case "close":
		fd, err := c.number(0)
		_, mine := d.handles[fd]
		// The kernel may give the number to another file before the call has returned.
		delete(d.handles, fd)
		return nil, mine, err
	case "dup", "dup2", "dup3":
		return d.withHandle(c, 0, func(h *handle) (func(), error) {
			return func() { d.handles[c.Result] = h }, nil
		})
	case "lseek":
		return d.withHandle(c, 0, func(h *handle) (func(), error) {
			h.position = c.Result
			return nil, nil
		})
	case "write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate":
		return d.withHandle(c, 0, func(h *handle) (func(), error) { return d.change(c, h) })
	case "copy_file_range", "splice":
		return d.withHandle(c, 2, func(*handle) (func(), error) { return nil, errUnknown })
	case "fsync", "fdatasync":
		return d.withHandle(c, 0, func(h *handle) (func(), error) { return d.sync(h.node), nil })
	case "io_uring_setup":
		return nil, true, errUnknown
	default:
		return d.rename(c)
	}
}

func (c *Call) number(i int) (int64, error) {
	if i >= len(c.Args) {
		return 0, errLine
	}
	n, err := strconv.ParseInt(c.Args[i], 0, 64)
	if err != nil {
		return 0, errLine
	}
	return n, nil
}

// withHandle calls f if the argument is an open file of the directory.
func (d *Disk) withHandle(c *Call, arg int, f func(*handle) (func(), error)) (end func(), mine bool, err error) {
	fd, err := c.number(arg)
	if err != nil {
		return nil, false, err
	}
	h := d.handles[fd]
	if h == nil {
		return nil, false, nil
	}
	end, err = f(h)
	return end, true, err
}

// path returns the absolute path of an argument. at is the argument that says where a relative path begins, or -1. A
// relative path begins at the root, where the programs are started, unless it begins at an open directory.
func (d *Disk) path(c *Call, at, arg int) (string, error) {
	if arg >= len(c.Args) {
		return "", errLine
	}
	name, err := text(c.Args[arg])
	if err != nil {
		return "", err
	}
	path := string(name)
	if filepath.IsAbs(path) {
		return filepath.Clean(path), nil
	}
	base := d.root
	if at >= 0 && c.Args[at] != "AT_FDCWD" {
		fd, err := c.number(at)
		if err != nil {
			return "", err
		}
		h := d.handles[fd]
		if h == nil {
			return "", fmt.Errorf("%w: a path relative to a directory elsewhere", errUnknown)
		}
		base = h.path
	}
	return filepath.Join(base, path), nil
}

// inside reports whether a path is the root or below it.
func (d *Disk) inside(path string) bool { return path == d.root || strings.HasPrefix(path, d.root+"/") }

// parent returns the directory that holds the path's last name.
func (d *Disk) parent(path string) (dir *node, name string, err error) {
	path = strings.TrimPrefix(strings.TrimPrefix(path, d.root), "/")
	names := strings.Split(path, "/")
	dir = d.top
	for _, name := range names[:len(names)-1] {
		if dir = dir.names[name]; dir == nil || !dir.isDirectory() {
			return nil, "", errMissing
		}
	}
	return dir, names[len(names)-1], nil
}

func (d *Disk) find(path string) (*node, error) {
	if path == d.root {
		return d.top, nil
	}
	dir, name, err := d.parent(path)
	if err != nil {
		return nil, err
	}
	if n := dir.names[name]; n != nil {
		return n, nil
	}
	return nil, errMissing
}

// set changes names in the page cache. It returns the function that marks the change as ended.
func (d *Disk) set(effects ...effect) func() {
	c := &change{effects: effects}
	d.changes = append(d.changes, c)
	for _, e := range effects {
		if e.node == nil {
			delete(e.dir.names, e.name)
		} else {
			e.dir.names[e.name] = e.node
		}
	}
	return func() { c.ended = true }
}

// effect returns the effect that gives the path to the node.
func (d *Disk) effect(path string, n *node) (effect, error) {
	dir, name, err := d.parent(path)
	return effect{dir: dir, name: name, node: n, path: path}, err
}

func (d *Disk) open(c *Call) (end func(), mine bool, err error) {
	at, arg := 0, 1
	if c.Name == "open" || c.Name == "creat" {
		at, arg = -1, 0
	}
	path, err := d.path(c, at, arg)
	if err != nil || !d.inside(path) || c.Unanswered {
		return nil, false, err
	}
	if c.Name == "openat2" || c.Name == "creat" || len(c.Args) < arg+2 {
		return nil, true, errUnknown
	}
	flags := strings.Split(c.Args[arg+1], "|")
	for _, unknown := range []string{"O_SYNC", "O_DSYNC", "O_TMPFILE", "O_DIRECT"} {
		if slices.Contains(flags, unknown) {
			return nil, true, errUnknown
		}
	}
	created := func() {}
	n, err := d.find(path)
	switch {
	case errors.Is(err, errMissing) && slices.Contains(flags, "O_CREAT"):
		n = &node{}
		e, err := d.effect(path, n)
		if err != nil {
			return nil, true, err
		}
		created = d.set(e)
	case err != nil:
		return nil, true, err
	case slices.Contains(flags, "O_TRUNC") && n.size > 0:
		created = n.put(&write{resize: true})
	}
	h := &handle{node: n, path: path, append: slices.Contains(flags, "O_APPEND")}
	return func() {
		created()
		d.handles[c.Result] = h
	}, true, nil
}

// put adds a write. It returns the function that marks the write as ended.
func (n *node) put(w *write) func() {
	n.writes = append(n.writes, w)
	if w.resize {
		n.size = w.at
	} else {
		n.size = max(n.size, w.end())
	}
	return func() { w.ended = true }
}

func (w *write) end() int64 { return w.at + int64(len(w.data)) }

// change follows a call that changes a file's content.
func (d *Disk) change(c *Call, h *handle) (end func(), err error) {
	if len(c.Args) < 2 {
		return nil, errLine
	}
	switch c.Name {
	case "ftruncate":
		size, err := c.number(1)
		if err != nil {
			return nil, err
		}
		return h.put(&write{at: size, resize: true}), nil
	case "fallocate":
		if len(c.Args) < 4 || c.Args[1] != "0" {
			return nil, errUnknown
		}
		from, err := c.number(2)
		if err != nil {
			return nil, err
		}
		length, err := c.number(3)
		if err != nil || from+length <= h.size {
			return nil, err
		}
		return h.put(&write{at: from + length, resize: true}), nil
	}
	data, err := texts(c.Args[1])
	if err != nil {
		return nil, err
	}
	if !c.Unanswered {
		if c.Result > int64(len(data)) {
			return nil, errLine
		}
		data = data[:c.Result]
	}
	at := h.position
	switch c.Name {
	case "write", "writev":
		if h.append {
			at = h.size
		}
		h.position = at + int64(len(data))
	case "pwrite64":
		if at, err = c.number(3); err != nil {
			return nil, err
		}
		if h.append {
			return nil, errUnknown
		}
	default:
		return nil, errUnknown
	}
	w := &write{at: at, data: data}
	if c.Unanswered {
		d.halves = append(d.halves, half{call: c, write: w, node: h.node, path: h.path})
	}
	return h.put(w), nil
}

// Resolve finds out how much was written by the calls whose end a process has not seen, when the process has ended and
// left the tree. It changes these calls, and returns the steps of their ends.
func (d *Disk) Resolve(left Tree, at time.Time) []Step {
	var steps []Step
	for _, h := range d.halves {
		content := left[strings.TrimPrefix(h.path, d.root+"/")]
		there := content[min(h.write.at, int64(len(content))):]
		n := 0
		for n < len(h.write.data) && n < len(there) && there[n] == h.write.data[n] {
			n++
		}
		h.write.data = h.write.data[:n]
		h.node.size = int64(len(content))
		h.call.Result, h.call.Unanswered = int64(n), false
		steps = append(steps, Step{Call: h.call, Ended: true, At: at})
	}
	d.halves = nil
	return steps
}

// rename follows a call that changes names.
func (d *Disk) rename(c *Call) (end func(), mine bool, err error) {
	var at, arg int
	switch c.Name {
	case "truncate", "mkdir", "rmdir", "unlink":
		at, arg = -1, 0
	case "mkdirat", "unlinkat":
		at, arg = 0, 1
	case "rename", "link":
		return d.move(c, -1, 0, -1, 1)
	case "renameat", "renameat2", "linkat":
		return d.move(c, 0, 1, 2, 3)
	case "symlink":
		at, arg = -1, 1
	case "symlinkat":
		at, arg = 1, 2
	default:
		return nil, true, errUnknown
	}
	path, err := d.path(c, at, arg)
	if err != nil || !d.inside(path) || c.Unanswered {
		return nil, false, err
	}
	e, err := d.effect(path, nil)
	if err != nil {
		return nil, true, err
	}
	switch c.Name {
	case "mkdir", "mkdirat":
		e.node = newDirectory()
		return d.set(e), true, nil
	case "rmdir", "unlink", "unlinkat":
		if e.dir.names[e.name] == nil {
			return nil, true, errMissing
		}
		return d.set(e), true, nil
	}
	return nil, true, errUnknown
}

// move follows a call that gives a node another name or one more.
func (d *Disk) move(c *Call, fromAt, fromArg, toAt, toArg int) (end func(), mine bool, err error) {
	from, err := d.path(c, fromAt, fromArg)
	if err != nil {
		return nil, false, err
	}
	to, err := d.path(c, toAt, toArg)
	if err != nil || !d.inside(from) && !d.inside(to) || c.Unanswered {
		return nil, false, err
	}
	if !d.inside(from) || !d.inside(to) || len(c.Args) > toArg+1 && c.Args[toArg+1] != "0" {
		return nil, true, errUnknown
	}
	n, err := d.find(from)
	if err != nil {
		return nil, true, err
	}
	added, err := d.effect(to, n)
	if err != nil {
		return nil, true, err
	}
	if strings.HasPrefix(c.Name, "link") {
		return d.set(added), true, nil
	}
	removed, err := d.effect(from, nil)
	if err != nil {
		return nil, true, err
	}
	return d.set(removed, added), true, nil
}

// sync follows a sync of a file or of a directory. The sync is certain only for the changes that had ended when it
// began, and only from its own end on.
func (d *Disk) sync(n *node) func() {
	var writes []*write
	for _, w := range n.writes {
		if w.ended {
			writes = append(writes, w)
		}
	}
	changes := d.syncedNames(n)
	return func() {
		for _, w := range writes {
			n.synced = w.apply(n.synced)
		}
		n.writes = slices.DeleteFunc(n.writes, func(w *write) bool { return slices.Contains(writes, w) })
		for _, c := range changes {
			d.settle(c)
		}
	}
}

// syncedNames returns the changes of names that a sync of the node makes durable.
func (d *Disk) syncedNames(n *node) []*change {
	last := -1
	var synced []*change
	for i, c := range d.changes {
		for _, e := range c.effects {
			if c.ended && (e.dir == n || d.Journal && e.node == n) {
				last = i
				synced = append(synced, c)
				break
			}
		}
	}
	if !d.Journal {
		return synced
	}
	return slices.DeleteFunc(slices.Clone(d.changes[:last+1]), func(c *change) bool { return !c.ended })
}

// settle makes a change of names durable. It drops the effects of earlier changes on the same names, which can no
// longer show.
func (d *Disk) settle(c *change) {
	i := slices.Index(d.changes, c)
	if i < 0 {
		return // another sync was faster
	}
	for _, e := range c.effects {
		e.apply()
		for _, earlier := range d.changes[:i] {
			earlier.effects = slices.DeleteFunc(earlier.effects,
				func(other effect) bool { return other.dir == e.dir && other.name == e.name })
		}
	}
	d.changes = slices.Delete(d.changes, i, i+1)
	d.changes = slices.DeleteFunc(d.changes, func(c *change) bool { return len(c.effects) == 0 })
}

func (e effect) apply() {
	if e.node == nil {
		delete(e.dir.durable, e.name)
	} else {
		e.dir.durable[e.name] = e.node
	}
}

// apply returns the content after the write.
func (w *write) apply(content []byte) []byte {
	if w.resize {
		return resize(content, w.at)
	}
	if int64(len(content)) < w.end() {
		content = resize(content, w.end())
	}
	copy(content[w.at:], w.data)
	return content
}

// resize cuts the content, or adds zeros.
func resize(content []byte, size int64) []byte {
	if more := size - int64(len(content)); more > 0 {
		return append(content, make([]byte, more)...)
	}
	return content[:size:size]
}

// Pending describes for a human the changes that are not durable, each once.
func (d *Disk) Pending() []string {
	var all []string
	for _, c := range d.changes {
		var effects []string
		for _, e := range c.effects {
			what := "removed"
			if e.node != nil {
				what = "made"
			}
			effects = append(effects, fmt.Sprintf("%s %s", strings.TrimPrefix(e.path, d.root+"/"), what))
		}
		all = append(all, strings.Join(effects, " and "))
	}
	slices.Sort(all)
	all = slices.Compact(all)
	d.walk(d.top, "", func(path string, n *node) {
		if len(n.writes) == 0 {
			return
		}
		last := n.writes[len(n.writes)-1]
		what := fmt.Sprintf("written from %d to %d", last.at, last.end())
		if last.resize {
			what = fmt.Sprintf("resized to %d", last.at)
		}
		all = append(all, fmt.Sprintf("%s changed %d times, lastly %s", path, len(n.writes), what))
	})
	return all
}

// walk visits the nodes in the page cache, in the order of their paths.
func (d *Disk) walk(n *node, path string, visit func(string, *node)) {
	visit(path, n)
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		d.walk(n.names[name], filepath.Join(path, name), visit)
	}
}
