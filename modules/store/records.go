package store

import (
	"context"
	"errors"
)

// ErrConflict means that a record is not what the caller thinks it is.
var ErrConflict = errors.New("the record has changed")

// Fields is the content of a record.
type Fields map[string]string

// Records keeps small records that people write and every node reads, such as projects. A record has a kind and a name,
// such as "project" and a token. In Redis it is a hash with the key KIND:{NAME}, so people can also write it by hand.
type Records interface {
	// Get returns a record. A record without a field does not exist, and has no fields.
	Get(ctx context.Context, kind, name string) (Fields, error)

	// List returns the names of the records of a kind, in the order of the names: at most limit of them, those behind
	// the name after. It is for people: it may look through all that the store has.
	List(ctx context.Context, kind, after string, limit int) ([]string, error)

	// Put writes a record in the place of what is there, if that is still before. Nil stands for a record that does not
	// exist; after = nil removes the record. If the record is not what before says, Put writes nothing, and the error
	// wraps ErrConflict.
	Put(ctx context.Context, kind, name string, before, after Fields) error

	// Watch calls changed for each record of the kind that Put has written on any node. An empty name says that records
	// may have changed that nobody can tell, since the store was away. changed must not block. A record that was
	// written by hand is not told. Watch is called before the store starts.
	Watch(kind string, changed func(name string))
}
