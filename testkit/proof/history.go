package proof

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// Shape says how a load spreads its events. A batch has PerKey events of each of its worker's Keys, taken in turns: a,
// b, a, b.
type Shape struct {
	// Workers is how many workers send at the same time, one batch each. Keys is how many distinct_ids each worker has
	// to itself.
	Workers, Keys, PerKey int
	// Pad is how many bytes of each event only add to its size.
	Pad int
	// Name is the events' name; empty: "chaos". Token is the project that they are for; empty: phc_chaos.
	Name, Token string
	// One of Every events of a worker's first key has Large bytes in the place of Pad. Such an event is guilty: only
	// guilty events may become dead letters, for the reason Reason. Every 0: no event is guilty.
	Every, Large int
	Reason       string
}

// IsGuilty reports whether Kafka may refuse the event.
func (s Shape) IsGuilty(e Event) bool {
	return s.Every > 0 && e.Key == 0 && e.Number%s.Every == s.Every-1
}

// padOf returns how many bytes of the event only add to its size.
func (s Shape) padOf(e Event) int {
	if s.IsGuilty(e) {
		return s.Large
	}
	return s.Pad
}

// name returns the events' name.
func (s Shape) name() string {
	if s.Name == "" {
		return "chaos"
	}
	return s.Name
}

// Project returns the token of the project that the events are for.
func (s Shape) Project() string {
	if s.Token == "" {
		return "phc_chaos"
	}
	return s.Token
}

// Size returns how many events a batch has.
func (s Shape) Size() int { return s.Keys * s.PerKey }

// Batch is a batch that was acknowledged. Each of its events is an obligation.
type Batch struct {
	// Attempts is how often the batch was sent, the acknowledged attempt included. The attempts before may have left
	// copies.
	Attempts int
	// Ack says where the service has put the batch, in the words of its answer's header. Empty: the answer does not
	// say.
	Ack string
	// Latency is how long the acknowledged attempt took. Its answer came at At.
	Latency time.Duration
	At      time.Time
	// Caught says that a service was killed while it had the batch. Only a storm says so, and has all attempts in sent.
	Caught bool
	sent   []Attempt
}

// Sent returns when the acknowledged attempt was sent.
func (b Batch) Sent() time.Time { return b.At.Add(-b.Latency) }

// History is the promises that a load has got.
type History struct {
	// ID tells the events of different loads apart. It is never 0.
	ID uint32
	Shape
	// Batches are the acknowledged batches of each worker. A worker sends a batch until it is acknowledged and only
	// then the next one. So batch i holds the numbers from i*PerKey to (i+1)*PerKey-1 of each key, and was first sent
	// after batch i-1 was acknowledged.
	Batches [][]Batch
	// Refused counts attempts that were answered with another status than 200, Unanswered the attempts that got no
	// answer.
	Refused, Unanswered int
}

// NewHistory returns the history of a load that has sent nothing yet.
func NewHistory(shape Shape) *History {
	return &History{ID: 1 + rand.Uint32N(1<<32-2), Shape: shape, Batches: make([][]Batch, shape.Workers)}
}

// Event identifies an event. Number counts the events of one key of one worker of one load.
type Event struct {
	Load                uint32
	Worker, Key, Number int
}

// UUID returns the event's uuid, which holds the whole Event in the form of a random uuid (version 4).
func (e Event) UUID() uuid.UUID {
	var id uuid.UUID
	binary.BigEndian.PutUint32(id[0:], e.Load)
	binary.BigEndian.PutUint16(id[4:], uint16(e.Worker))
	id[6], id[8] = 0x40, 0x80
	binary.BigEndian.PutUint16(id[10:], uint16(e.Key))
	binary.BigEndian.PutUint32(id[12:], uint32(e.Number))
	return id
}

// EventOf is the inverse of UUID. ok is false for a uuid that UUID has not made.
func EventOf(id uuid.UUID) (e Event, ok bool) {
	e = Event{
		Load:   binary.BigEndian.Uint32(id[0:]),
		Worker: int(binary.BigEndian.Uint16(id[4:])),
		Key:    int(binary.BigEndian.Uint16(id[10:])),
		Number: int(binary.BigEndian.Uint32(id[12:])),
	}
	return e, e.UUID() == id
}

// DistinctID returns the distinct_id of the event's key. No other worker and no other load has it.
func (e Event) DistinctID() string {
	return strconv.FormatUint(uint64(e.Load), 16) + "-" + strconv.Itoa(e.Worker) + "-" + strconv.Itoa(e.Key)
}

// Acked returns how many events were acknowledged.
func (h *History) Acked() int {
	sum := 0
	for _, batches := range h.Batches {
		sum += len(batches) * h.Size()
	}
	return sum
}

// Between returns the history of the batches that were acknowledged at or after from and before to. It is for rates and
// latencies, not for a judge.
func (h *History) Between(from, to time.Time) *History {
	part := &History{ID: h.ID, Shape: h.Shape}
	for _, batches := range h.Batches {
		var kept []Batch
		for _, batch := range batches {
			if !batch.At.Before(from) && batch.At.Before(to) {
				kept = append(kept, batch)
			}
		}
		part.Batches = append(part.Batches, kept)
	}
	return part
}

// P99 returns the 99th percentile of the latency of acknowledged requests, over all of the histories.
func P99(histories ...*History) time.Duration {
	all := latencies(histories)
	if len(all) == 0 {
		return 0
	}
	return all[(len(all)*99-1)/100]
}

// latencies returns the latencies of all acknowledged requests, in their order.
func latencies(histories []*History) []time.Duration {
	var all []time.Duration
	for _, history := range histories {
		for _, batches := range history.Batches {
			for _, batch := range batches {
				all = append(all, batch.Latency)
			}
		}
	}
	slices.Sort(all)
	return all
}

// pool holds the bytes that pads are cut from. It is the same in every process, and does not compress to nothing.
var pool = func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
	pool := make([]byte, 1<<20)
	for i := range pool {
		pool[i] = letters[random.IntN(len(letters))]
	}
	return pool
}()

// pad returns n bytes that belong to the event.
func (e Event) pad(n int) []byte {
	start := (e.Number*7919 + e.Key*104729 + e.Worker*1299709) % (len(pool) - n)
	return pool[start : start+n]
}

// appendJSON appends the event in the form in which a load of this shape sends it.
func (e Event) appendJSON(to []byte, shape Shape) []byte {
	to = append(to, `{"uuid":"`...)
	id := e.UUID()
	to = append(to, id.String()...)
	to = append(to, `","event":"`...)
	to = append(to, shape.name()...)
	to = append(to, `","distinct_id":"`...)
	to = append(to, e.DistinctID()...)
	to = append(to, `","properties":{"n":`...)
	to = strconv.AppendInt(to, int64(e.Number), 10)
	to = append(to, `,"pad":"`...)
	to = append(to, e.pad(shape.padOf(e))...)
	return append(to, `"}}`...)
}
