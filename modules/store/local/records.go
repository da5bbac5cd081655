package local

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/opencapture/capture/modules/store"
)

const (
	// maxRecords is how many records a kind has at most, and maxRecordBytes how long the names and values of one are
	// together: all records of a kind are in memory, and are written whole.
	maxRecords, maxRecordBytes = 100_000, 64 << 10
)

// records has the records of one kind.
type records struct {
	// writing is held while a record is written to the disk, so that others can read meanwhile.
	writing sync.Mutex
	mu      sync.RWMutex
	byName  map[string]store.Fields
	changed []func(string)
	// blocked is set if there is a file that could not be read and could not be set aside either: it must not be
	// overwritten.
	blocked error
}

// kind returns the records of a kind, which it makes if there are none yet.
func (s *Store) kind(name string) (*records, error) {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" || len(name) > maxKind {
		return nil, fmt.Errorf("%q is no kind of records: it must have 1 to %d of a to z, 0 to 9, _ and -", name,
			maxKind)
	}
	s.kindsMu.Lock()
	defer s.kindsMu.Unlock()
	k := s.kinds[name]
	if k == nil {
		k = &records{byName: map[string]store.Fields{}}
		s.kinds[name] = k
	}
	return k, nil
}

const maxKind = 64

// Get implements store.Records.
func (s *Store) Get(ctx context.Context, kind, name string) (store.Fields, error) {
	k, err := s.kind(kind)
	if err := firstOf(s.usable(ctx), err); err != nil {
		return nil, err
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	return maps.Clone(k.byName[name]), nil
}

// List implements store.Records.
func (s *Store) List(ctx context.Context, kind, after string, limit int) ([]string, error) {
	k, err := s.kind(kind)
	if err := firstOf(s.usable(ctx), err); err != nil {
		return nil, err
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	var names []string
	for name := range k.byName {
		if name > after {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names[:min(len(names), max(limit, 0))], nil
}

// Put implements store.Records. If the disk does not take the record, the record is not changed, and the error says so.
func (s *Store) Put(ctx context.Context, kind, name string, before, after store.Fields) error {
	k, err := s.kind(kind)
	if err := firstOf(s.usable(ctx), err, checkRecord(name, after)); err != nil {
		return err
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	if !maps.Equal(k.byName[name], before) {
		return fmt.Errorf("%s %q: %w", kind, name, store.ErrConflict)
	}
	next := maps.Clone(k.byName)
	if len(after) == 0 {
		delete(next, name)
	} else {
		next[name] = maps.Clone(after)
	}
	if len(next) > maxRecords {
		return fmt.Errorf("there are %d records of the kind %s, and one more is too many", maxRecords, kind)
	}
	if err := s.saveRecords(kind, k, next); err != nil {
		return fmt.Errorf("the disk does not take the record, which stays as it was: %w: %w", store.ErrUnavailable, err)
	}
	k.mu.Lock()
	k.byName = next
	watchers := k.changed
	k.mu.Unlock()
	for _, changed := range watchers {
		changed(name)
	}
	return nil
}

// checkRecord finds what a file of records cannot hold.
func checkRecord(name string, fields store.Fields) error {
	size := len(name)
	for field, value := range fields {
		size += len(field) + len(value)
		if !utf8.ValidString(field) || !utf8.ValidString(value) {
			return fmt.Errorf("the field %q is not UTF-8", field)
		}
	}
	switch {
	case !utf8.ValidString(name):
		return fmt.Errorf("the name %q is not UTF-8", name)
	case name == "":
		return fmt.Errorf("a record needs a name")
	case size > maxRecordBytes:
		return fmt.Errorf("the record has %d bytes, and %d are allowed", size, maxRecordBytes)
	}
	return nil
}

// Watch implements store.Records.
func (s *Store) Watch(kind string, changed func(name string)) {
	k, err := s.kind(kind)
	if err != nil {
		panic(err) // The kind is in the code of the caller.
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changed = append(k.changed, changed)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
