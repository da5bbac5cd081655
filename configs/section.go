package configs

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Listener is implemented by a section whose module binds addresses. Listens returns the addresses that the module
// binds with the given configuration, each under the name of its key relative to the section. All addresses of a build
// must differ.
type Listener interface {
	Listens(set *Set) map[string]string
}

// Section is a module's part of the configuration: the name of its section, and a struct value that holds the defaults.
//
// A field of the struct is a setting, or a struct with further settings. Its tag "key" is the setting's name, and its
// tag "doc" is the text for the reference. With live:"true" the setting, or each setting of the struct, changes without
// a restart: the module follows it by NewValue or Follow.
type Section struct {
	Name     string
	Defaults any
}

// Validator is implemented by a section that has rules of its own. Validate reports every fault at once (see Faults).
// The keys in its faults are relative to the section.
type Validator interface{ Validate() error }

// StopBudgeter is implemented by a section whose module works while it stops. StopBudget is the longest time that the
// module's OnStop hooks may take. The sum over all modules must fit app.stop_timeout: Fx stops everything under one
// deadline, and a hook that uses all of it would keep the later hooks from running.
type StopBudgeter interface{ StopBudget() time.Duration }

// StartBudgeter is StopBudgeter's counterpart for OnStart hooks and app.start_timeout.
type StartBudgeter interface{ StartBudget() time.Duration }

// MemoryBudgeter is implemented by a section whose module holds memory because of what clients send. MemoryBudget is
// the most bytes of that memory. limit is how many bytes the whole process may take, and 0 if nobody has said; a budget
// that is not configured may be a share of it. A module whose memory has no bound returns Unbounded.
type MemoryBudgeter interface {
	MemoryBudget(set *Set, limit int64) int64
}

// Unbounded is the MemoryBudget of a module whose memory has no bound.
const Unbounded = math.MaxInt64

// key is one entry of a section: a setting, or a group of further keys.
type key struct {
	name  string
	path  string
	doc   string
	value reflect.Value
	group bool
	// live is set for a setting that changes without a restart.
	live bool
	keys []*key
}

// layout holds every section of a build, in the order of its modules, with the values that have been set so far.
type layout struct {
	sections []*key
	paths    []string
	byPath   map[string]*key
}

// newLayout reads the sections from the modules' defaults. Its faults are mistakes in a module, not in a configuration.
func newLayout(sections []Section) (*layout, error) {
	l := &layout{byPath: map[string]*key{}}
	var faults Faults
	names := map[string]bool{}
	for _, of := range sections {
		switch {
		case of.Name == "":
			faults.Addf("modules", "a module of this build has no name")
			continue
		case names[of.Name]:
			faults.Addf(of.Name, "two modules of this build have this name: leave one out")
			continue
		}
		names[of.Name] = true
		if of.Defaults == nil {
			continue
		}
		defaults := reflect.ValueOf(of.Defaults)
		if defaults.Kind() != reflect.Struct {
			faults.Addf(of.Name, "a section is a struct value, not a %s", defaults.Type())
			continue
		}
		value := reflect.New(defaults.Type()).Elem()
		value.Set(defaults)
		section := &key{name: of.Name, path: of.Name, value: value, group: true}
		l.add(section, &faults)
		l.sections = append(l.sections, section)
	}
	return l, faults.Err()
}

func (l *layout) add(k *key, faults *Faults) {
	l.paths = append(l.paths, k.path)
	l.byPath[k.path] = k
	if !k.group {
		return
	}
	for i := range k.value.NumField() {
		field := k.value.Type().Field(i)
		child := &key{name: field.Tag.Get("key"), doc: field.Tag.Get("doc"), value: k.value.Field(i)}
		child.live = k.live || field.Tag.Get("live") == "true"
		child.path = k.path + "." + child.name
		if child.name == "" || !field.IsExported() {
			faults.Addf(k.path, "field %s of %s needs to be exported and to have a key tag", field.Name, k.value.Type())
			continue
		}
		switch value := child.value.Interface().(type) {
		case string, bool, int, int64, float64, time.Duration, []string, List, Files, Command, ByteSize:
		case Secret:
			if value != "" {
				faults.Addf(child.path, "a secret has no default")
			}
		default:
			if field.Type.Kind() != reflect.Struct {
				faults.Addf(child.path, "a key cannot be a %s", field.Type)
				continue
			}
			child.group = true
		}
		l.add(child, faults)
		k.keys = append(k.keys, child)
	}
}

// list reports whether the key holds several values.
func (k *key) list() bool {
	switch k.value.Interface().(type) {
	case []string, List, Files, Command:
		return true
	}
	return false
}

// set parses a value from a source, a string or a []string, into the key.
func (k *key) set(from any) error {
	items, several := from.([]string)
	text, _ := from.(string)
	if k.list() && !several {
		items = splitList(text)
	}
	switch into := k.value.Addr().Interface().(type) {
	case *[]string:
		if len(items) > 0 || len(*into) > 0 {
			*into = items
		}
		return nil
	case *Command:
		if len(items) > 0 || len(*into) > 0 {
			*into = items
		}
		return nil
	case *List:
		if len(items) > 0 || len(into.entries) > 0 {
			into.entries = items
		}
		return nil
	case *Files:
		if len(items) > 0 || len(into.paths) > 0 {
			into.paths = items
		}
		return nil
	case *string:
		*into = text
		return nil
	case *Secret:
		*into = Secret(text)
		return nil
	case *bool:
		return assign(into, text, "true or false", func(s string) (bool, error) {
			if s != "true" && s != "false" {
				return false, strconv.ErrSyntax
			}
			return s == "true", nil
		})
	case *int:
		return assign(into, text, "a whole number", strconv.Atoi)
	case *int64:
		return assign(into, text, "a whole number",
			func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) })
	case *float64:
		return assign(into, text, "a number", func(s string) (float64, error) { return strconv.ParseFloat(s, 64) })
	case *time.Duration:
		return assign(into, text, "a duration: write a number with a unit, such as 500ms, 10s or 2m",
			time.ParseDuration)
	case *ByteSize:
		return into.UnmarshalText([]byte(text))
	}
	panic("configs: newLayout let a " + k.value.Type().String() + " through")
}

func assign[T any](into *T, text, kind string, parse func(string) (T, error)) error {
	value, err := parse(strings.TrimSpace(text))
	if err != nil {
		return fmt.Errorf("%q is not %s", text, kind)
	}
	*into = value
	return nil
}

func splitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// nearest returns the known path that the given one is most likely a misspelling of, or "". Dots count as underscores,
// so that the variable CAPTURE_KAFKA_BROKERS finds kafka.brokers.
func (l *layout) nearest(path string) string {
	last := path[strings.LastIndexByte(path, '.')+1:]
	flatten := func(path string) string { return strings.ReplaceAll(path, ".", "_") }
	flat := make([]string, len(l.paths))
	for i, known := range l.paths {
		flat[i] = flatten(known)
	}
	if i := closest(flatten(path), flat, len(last)); i >= 0 {
		return l.paths[i]
	}
	section, _, _ := strings.Cut(path, ".")
	for _, known := range l.paths {
		if strings.HasPrefix(known, section+".") && strings.HasSuffix(known, "."+last) {
			return known
		}
	}
	return ""
}

// Nearest returns the known word that the given one is most likely a misspelling of, or "".
func Nearest(word string, known []string) string {
	if i := closest(word, known, len(word)); i >= 0 {
		return known[i]
	}
	return ""
}

// closest returns the index of the known word that takes the fewest edits to reach from the given one. It returns -1 if
// every known word takes more edits than a third of letters, at least 1 and at most 3.
func closest(word string, known []string, letters int) int {
	best, least := -1, min(max(1, letters/3), 3)+1
	for i, candidate := range known {
		if len(candidate)-len(word) >= least || len(word)-len(candidate) >= least {
			continue
		}
		if distance := editDistance(word, candidate); distance < least {
			best, least = i, distance
		}
	}
	return best
}

// editDistance returns the least number of letters to insert, delete, replace, or swap with their neighbour that turns
// a into b.
func editDistance(a, b string) int {
	var before []int
	previous := make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current := make([]int, len(b)+1)
		current[0] = i
		for j := 1; j <= len(b); j++ {
			replace := previous[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			current[j] = min(previous[j]+1, current[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous = previous, current
	}
	return previous[len(b)]
}
