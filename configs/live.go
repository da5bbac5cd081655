package configs

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencapture/capture/modules/panics"
)

// Live holds the configuration in force and exchanges it while the service runs: as a whole or not at all.
//
//  1. Live loads the new configuration and checks it like the first one.
//  2. If a key has changed that is not live (see the tag of a section's field), Live refuses the configuration and
//     names the key.
//  3. Every module prepares its part of the new configuration (NewValue, Follow), or refuses the configuration. Until
//     then nothing has changed.
//  4. Live puts the View of the new configuration in the place of the old one, in one step. Then the modules commit
//     what a View cannot hold, such as the level of the log.
//
// A request that is being judged at that moment keeps the View that it took when it began. Live is safe for concurrent
// use.
type Live struct {
	load func() (*Set, error)

	mu        sync.Mutex // one change at a time
	values    []func(*Set) (any, error)
	followers []func(before, after *Set) (Change, error)
	reports   []func(Status)

	current atomic.Pointer[View]
	status  atomic.Pointer[Status]
}

// View is the values of one configuration. A request takes the View in force once, at its beginning, and is judged by
// that View until its end. A View never changes.
type View struct {
	set    *Set
	values []any
	number int
}

// Number returns the number of the configuration. The first configuration of the process is number 1.
func (v *View) Number() int { return v.number }

// Set returns the configuration that the view belongs to.
func (v *View) Set() *Set { return v.set }

// Status tells how the last attempt to exchange the configuration ended.
type Status struct {
	// Number is the number of the configuration in force. Since is when that configuration came into force.
	Number int       `json:"number"`
	Since  time.Time `json:"since"`
	// Loaded is when a configuration was last loaded. Changed lists the keys in which it differs from the one in force
	// before, in the order of the reference.
	Loaded  time.Time `json:"loaded"`
	Changed []string  `json:"changed,omitempty"`
	// Error says why the configuration that was loaded last was refused, or that a module panicked when it put its part
	// of that configuration in force. It is empty if the whole configuration is in force.
	Error string `json:"error,omitempty"`
}

// Refused reports whether the configuration that was loaded last was refused, so that the one before stays in force.
func (s Status) Refused() bool { return s.Error != "" && !s.Since.Equal(s.Loaded) }

// Change is a module's prepared part of a new configuration. When all modules have prepared their parts, Live calls
// Commit, which puts the part in force and has no error to return: Live tells of a Commit that panics, and goes on with
// the others. When a module refuses, Live calls Cancel, which gives the part up. Either function may be nil.
type Change struct{ Commit, Cancel func() }

// NewLive returns a Live with the set in force. Reload calls load for a new set.
func NewLive(set *Set, load func() (*Set, error)) *Live {
	l := &Live{load: load}
	now := time.Now()
	l.current.Store(&View{set: set, number: 1})
	l.status.Store(&Status{Number: 1, Since: now, Loaded: now})
	return l
}

// Fixed returns a Live of these sections, which are struct values. Its configuration never changes. It is for callers
// that have no configuration to load, such as tests.
func Fixed(sections ...any) *Live {
	var all []Section
	for i, section := range sections {
		all = append(all, Section{Name: fmt.Sprintf("section%d", i), Defaults: section})
	}
	layout, err := newLayout(all)
	if err != nil {
		panic(err)
	}
	set := &Set{layout: layout}
	return NewLive(set, func() (*Set, error) { return set, nil })
}

// View returns the view in force.
func (l *Live) View() *View { return l.current.Load() }

// Status returns how the last attempt to exchange the configuration ended.
func (l *Live) Status() Status { return *l.status.Load() }

// Value is a value that a module prepares from its section.
type Value[T any] struct {
	live  *Live
	index int
}

// NewValue calls prepare with the section that is a C, now and for every new configuration. C is the type of a section
// or of a group of keys, and the build must have exactly one of that type. If prepare returns an error, the
// configuration is refused. The value that prepare returns never changes and holds nothing that has to be closed.
func NewValue[C, T any](l *Live, prepare func(C) (T, error)) (*Value[T], error) {
	build := func(set *Set) (any, error) {
		section, err := SectionOf[C](set)
		if err != nil {
			return nil, err
		}
		return prepare(section)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	view := *l.current.Load()
	value, err := build(view.set)
	if err != nil {
		return nil, err
	}
	view.values = append(slices.Clip(view.values), value)
	l.values = append(l.values, build)
	l.current.Store(&view)
	return &Value[T]{live: l, index: len(view.values) - 1}, nil
}

// Current returns a Value that is the section itself.
func Current[C any](l *Live) (*Value[C], error) {
	return NewValue(l, func(section C) (C, error) { return section, nil })
}

// In returns the value that belongs to the view. Nil stands for the view in force.
func (v *Value[T]) In(view *View) T {
	if view == nil || v.index >= len(view.values) {
		view = v.live.current.Load()
	}
	return view.values[v.index].(T)
}

// Now returns the value that belongs to the view in force.
func (v *Value[T]) Now() T { return v.In(nil) }

// Follow calls prepare with the old and the new section that is a C, for every new configuration in which the section
// differs. It is for state that a View cannot hold. If prepare returns an error, the configuration is refused.
func Follow[C any](l *Live, prepare func(before, after C) (Change, error)) error {
	if _, err := SectionOf[C](l.View().set); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followers = append(l.followers, func(before, after *Set) (Change, error) {
		old, err := SectionOf[C](before)
		if err != nil {
			return Change{}, err
		}
		section, err := SectionOf[C](after)
		if err != nil || reflect.DeepEqual(old, section) {
			return Change{}, err
		}
		return prepare(old, section)
	})
	return nil
}

// Report calls report with the outcome of every attempt to exchange the configuration. The function must not block.
func (l *Live) Report(report func(Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reports = append(l.reports, report)
}

// Reload loads the configuration and puts it in force. An error says why the old configuration stays in force, or which
// Commit panicked; Status.Refused tells the two apart.
func (l *Live) Reload() (Status, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	status := Status{Loaded: time.Now()}
	before := l.current.Load()
	after, err := guard("loading it", l.load)
	if err == nil {
		status.Changed = before.set.changed(after)
		err = l.exchange(before, after, status.Changed)
	}
	old := l.status.Load()
	status.Number, status.Since = old.Number, old.Since
	if number := l.current.Load().number; number != status.Number {
		status.Number, status.Since = number, status.Loaded
	}
	if err != nil {
		status.Error = err.Error()
	}
	l.status.Store(&status)
	for _, report := range l.reports {
		_ = panics.Catch(func() error { report(status); return nil })
	}
	return status, err
}

// exchange puts the set in force. changed lists the keys in which the set differs from the one before. An error says
// why the set is refused, or that a Commit panicked.
func (l *Live) exchange(before *View, after *Set, changed []string) error {
	if len(changed) == 0 {
		return nil
	}
	var faults Faults
	for _, path := range changed {
		faults.Check(after.layout.byPath[path].live, path, "needs a restart")
	}
	if err := faults.Err(); err != nil {
		return err
	}
	view := &View{set: after, number: before.number + 1}
	for _, build := range l.values {
		value, err := guard("preparing it", func() (any, error) { return build(after) })
		faults.Nest("", err)
		view.values = append(view.values, value)
	}
	var changes []Change
	for _, prepare := range l.followers {
		change, err := guard("preparing it", func() (Change, error) { return prepare(before.set, after) })
		faults.Nest("", err)
		changes = append(changes, change)
	}
	if err := faults.Err(); err != nil {
		for _, change := range changes {
			faults.Nest("", conclude("giving it up", change.Cancel))
		}
		return faults.Err()
	}
	l.current.Store(view)
	for _, change := range changes {
		faults.Nest("", conclude("the configuration is in force, but putting a part of it in force", change.Commit))
	}
	return faults.Err()
}

// guard calls f and returns a panic of it as an error. what says in the error what f does.
func guard[T any](what string, f func() (T, error)) (value T, err error) {
	err = panics.Catch(func() (err error) {
		value, err = f()
		return err
	})
	var caught *panics.Error
	if errors.As(err, &caught) {
		err = fmt.Errorf("%s panicked: %v", what, caught.Value)
	}
	return value, err
}

// conclude is guard for one half of a Change, which may be nil.
func conclude(what string, f func()) error {
	if f == nil {
		return nil
	}
	_, err := guard(what, func() (struct{}, error) { f(); return struct{}{}, nil })
	return err
}

// changed lists the keys whose values differ between the sets, in the order of the reference.
func (s *Set) changed(other *Set) []string {
	var paths []string
	for _, path := range s.layout.paths {
		k := s.layout.byPath[path]
		if !k.group && !reflect.DeepEqual(k.value.Interface(), other.layout.byPath[path].value.Interface()) {
			paths = append(paths, path)
		}
	}
	return paths
}
