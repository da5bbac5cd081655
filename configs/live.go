package configs

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Live holds the configuration in force and exchanges it while the service runs: as a whole or not at all.
//
//  1. The new configuration is loaded and checked like the first one.
//  2. A key that has changed and is not live (see the tag of a section's field) refuses it, by its name.
//  3. Every module prepares what it makes of its section (NewValue, Follow), or refuses. Nothing has changed yet.
//  4. The View of the new configuration takes the place of the old one in one step; then the modules commit what
//     a View does not hold, such as the level of the log.
//
// Whoever is judging a request at that moment goes on with the View that it took when it began. Live is safe for
// concurrent use.
type Live struct {
	load func() (*Set, error)

	mu        sync.Mutex // one change at a time
	values    []func(*Set) (any, error)
	followers []func(before, after *Set) (Change, error)
	reports   []func(Status)

	current atomic.Pointer[View]
	status  atomic.Pointer[Status]
}

// View is the values of one configuration. Whoever judges a request takes the View in force once, at the beginning, and
// looks at no other until the end. It never changes.
type View struct {
	set    *Set
	values []any
	number int
}

// Number counts the configurations of the process: 1 is the first.
func (v *View) Number() int { return v.number }

// Set is the configuration that the view belongs to.
func (v *View) Set() *Set { return v.set }

// Status is how the last attempt to exchange the configuration ended.
type Status struct {
	// Number is that of the configuration in force, Since when it came into force.
	Number int       `json:"number"`
	Since  time.Time `json:"since"`
	// Loaded is when a configuration was loaded last, Changed which keys it changed, in the order of the reference.
	Loaded  time.Time `json:"loaded"`
	Changed []string  `json:"changed,omitempty"`
	// Error is why the last configuration that was loaded is not in force; empty: it is.
	Error string `json:"error,omitempty"`
}

// Change is a module's part of a new configuration, prepared. When all modules have prepared theirs, Commit puts it in
// force, which cannot fail; when one refuses, Cancel gives up what was prepared. Either may be nil.
type Change struct{ Commit, Cancel func() }

// NewLive returns a Live with the set in force, which load exchanges for another.
func NewLive(set *Set, load func() (*Set, error)) *Live {
	l := &Live{load: load}
	now := time.Now()
	l.current.Store(&View{set: set, number: 1})
	l.status.Store(&Status{Number: 1, Since: now, Loaded: now})
	return l
}

// Fixed returns a Live of these sections, which are struct values, that nothing exchanges. It is for callers without a
// configuration to load, such as tests.
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

// View is the view in force.
func (l *Live) View() *View { return l.current.Load() }

// Status is how the last attempt to exchange the configuration ended.
func (l *Live) Status() Status { return *l.status.Load() }

// Value is what a module makes of its section.
type Value[T any] struct {
	live  *Live
	index int
}

// NewValue has prepare make a value of the section that is a C, now and for every new configuration. C is the type of a
// section or of a group of keys; there is one of it in the build. An error of prepare refuses the configuration. What
// prepare makes does not change any more, and holds nothing that somebody has to close.
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

// Current is a Value of a section as it is.
func Current[C any](l *Live) (*Value[C], error) {
	return NewValue(l, func(section C) (C, error) { return section, nil })
}

// In is the value that belongs to the view; nil is the view in force.
func (v *Value[T]) In(view *View) T {
	if view == nil || v.index >= len(view.values) {
		view = v.live.current.Load()
	}
	return view.values[v.index].(T) //nolint:errcheck // what NewValue put there
}

// Now is the value that belongs to the view in force.
func (v *Value[T]) Now() T { return v.In(nil) }

// Follow has prepare called with the section that is a C, before and after, for every new configuration in which the
// section differs. It is for what a View cannot hold. An error of prepare refuses the configuration.
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

// Report has report called with the outcome of every attempt to exchange the configuration. It must not wait for anybody.
func (l *Live) Report(report func(Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reports = append(l.reports, report)
}

// Reload loads the configuration and puts it in force. The error says why the old one stays in force instead.
func (l *Live) Reload() (Status, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	status := Status{Loaded: time.Now()}
	before := l.current.Load()
	after, err := l.load()
	if err == nil {
		status.Changed = before.set.changed(after)
		err = l.exchange(before, after, status.Changed)
	}
	old := l.status.Load()
	status.Number, status.Since = old.Number, old.Since
	switch {
	case err != nil:
		status.Error = err.Error()
	case len(status.Changed) > 0:
		status.Number, status.Since = l.current.Load().number, status.Loaded
	}
	l.status.Store(&status)
	for _, report := range l.reports {
		report(status)
	}
	return status, err
}

// exchange puts the set in force that differs by these keys, or returns why not.
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
		value, err := guard(func() (any, error) { return build(after) })
		faults.Nest("", err)
		view.values = append(view.values, value)
	}
	var changes []Change
	for _, prepare := range l.followers {
		change, err := guard(func() (Change, error) { return prepare(before.set, after) })
		faults.Nest("", err)
		changes = append(changes, change)
	}
	if err := faults.Err(); err != nil {
		for _, change := range changes {
			if change.Cancel != nil {
				change.Cancel()
			}
		}
		return err
	}
	l.current.Store(view)
	for _, change := range changes {
		if change.Commit != nil {
			change.Commit()
		}
	}
	return nil
}

// guard returns a panic of a module's prepare as an error: the configuration is refused.
func guard[T any](prepare func() (T, error)) (value T, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("preparing it panicked: %v", cause)
		}
	}()
	return prepare()
}

// changed lists the keys whose values differ, in the order of the reference.
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
