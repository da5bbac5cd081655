package memory

import (
	"math/bits"
	"sync"
)

const (
	// FirstRoom is how many elements the smallest room is for. Rooms are for FirstRoom elements, twice as many, and so
	// on up to lastRoom. A larger room is made to measure and left to the garbage collector. Large rooms are kept as
	// well: if each request made its own, garbage would come faster than it is collected.
	FirstRoom = 8

	lastRoom = 1 << 16

	roomClasses = 14 // from FirstRoom to lastRoom in powers of two
)

// Rooms hands out memory for elements, such as the events of a request, and takes it back for another request. Unlike a
// list that grows, a room has at most twice as many elements as were asked for, however large the requests before were.
// So its holder can reserve all of it. Rooms is safe for concurrent use.
type Rooms[T any] struct {
	newRoom func(n int) *T
	pools   [roomClasses]sync.Pool
}

// NewRooms returns Rooms that make a room for n elements by the function.
func NewRooms[T any](newRoom func(n int) *T) *Rooms[T] { return &Rooms[T]{newRoom: newRoom} }

// RoomFor returns for how many elements the room is that Get hands out for n.
func RoomFor(n int) int {
	switch {
	case n <= FirstRoom:
		return FirstRoom
	case n <= lastRoom:
		return 1 << bits.Len(uint(n-1))
	default:
		return n
	}
}

// Get returns a room for at least n elements, with whatever its last holder left in it.
func (r *Rooms[T]) Get(n int) *T {
	n = RoomFor(n)
	if n <= lastRoom {
		if room, ok := r.pools[roomClass(n)].Get().(*T); ok {
			return room
		}
	}
	return r.newRoom(n)
}

// Put takes back a room that Get has handed out for n elements.
func (r *Rooms[T]) Put(room *T, n int) {
	if n = RoomFor(n); n <= lastRoom {
		r.pools[roomClass(n)].Put(room)
	}
}

func roomClass(n int) int { return bits.Len(uint(n)) - bits.Len(FirstRoom) }
