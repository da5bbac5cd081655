package proof

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// message returns a message as the service makes it from an event with that pad.
func message(e Event, pad int) []byte {
	value, err := json.Marshal(map[string]string{
		"uuid": e.UUID().String(), "data": string(e.appendJSON(nil, Shape{Pad: pad})),
	})
	if err != nil {
		panic(err)
	}
	return value
}

// Each case is a made-up history of one key: the attempts of each batch, with two events a batch, and the events'
// numbers in the order in which their copies lie in Kafka.
func TestJudgeFindsWhatIsLostTwiceAndTooLate(t *testing.T) {
	for _, test := range []struct {
		name                        string
		attempts                    []int
		copies                      []int
		lost, duplicated, reordered int
	}{
		{"all there and in order", []int{1, 1}, []int{0, 1, 2, 3}, 0, 0, 0},
		{"nothing there", []int{1, 1}, nil, 4, 0, 0},
		{"one lost in the middle", []int{1, 1}, []int{0, 1, 3}, 1, 0, 0},
		{"the last one lost", []int{1, 1}, []int{0, 1, 2}, 1, 0, 0},
		{"one twice", []int{1, 1}, []int{0, 1, 1, 2, 3}, 0, 1, 0},
		{"all three times, each time in order", []int{1, 1}, []int{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}, 0, 8, 0},
		{"copies of what was never acknowledged", []int{1}, []int{0, 1, 2, 3}, 0, 0, 0},

		{"two batches in the wrong order", []int{1, 1}, []int{2, 3, 0, 1}, 0, 0, 2},
		{"a later batch first, and again behind", []int{1, 1}, []int{2, 0, 1, 2, 3}, 0, 1, 2},
		{"a later batch first, though it was sent several times", []int{1, 2}, []int{2, 0, 1, 2, 3}, 0, 1, 2},
		{"a batch before one that was sent several times", []int{2, 1}, []int{2, 3, 0, 1}, 0, 0, 2},
		{"one that comes too late for two others counts once", []int{1, 1}, []int{1, 2, 0, 3}, 0, 0, 1},
		{"what is lost has no order", []int{1, 1}, []int{2, 3, 1}, 1, 0, 1},

		{"a batch that was sent once, turned round", []int{1}, []int{1, 0}, 0, 0, 1},
		{"a batch that was sent once, turned round and again in order", []int{1}, []int{1, 0, 1}, 0, 1, 1},
		{"the failed attempt has left the second event alone", []int{2}, []int{1, 0, 1}, 0, 1, 0},
		{"the failed attempt has left all", []int{2, 1}, []int{0, 1, 0, 1, 2, 3}, 0, 2, 0},
		{"a copy of a failed attempt comes late", []int{2, 1}, []int{0, 1, 2, 3, 0, 1}, 0, 2, 0},
		{"sent several times, and no copy of the first event before one of the second", []int{3},
			[]int{1, 1, 0}, 0, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			history := NewHistory(Shape{Workers: 1, Keys: 1, PerKey: 2, Pad: 8})
			for _, attempts := range test.attempts {
				history.Batches[0] = append(history.Batches[0], Batch{Attempts: attempts})
			}
			judge := NewJudge(history)
			for offset, number := range test.copies {
				e := Event{Load: history.ID, Number: number}
				judge.See(Copy{ID: []byte(e.UUID().String()), Value: message(e, 8), Offset: int64(offset)})
			}
			v := judge.Verdict()
			require.Equal(t, fmt.Sprint(2*len(test.attempts), test.lost, test.duplicated, test.reordered),
				fmt.Sprint(v.Acked, v.Lost, v.Duplicated, v.Reordered))
			require.Zero(t, v.Unknown+v.Mangled+v.DLQ)
			require.Len(t, v.Missing, test.lost)
		})
	}
}

func TestJudgeTellsKeysWorkersAndLoadsApart(t *testing.T) {
	shape := Shape{Workers: 2, Keys: 2, PerKey: 1}
	histories := []*History{NewHistory(shape), NewHistory(shape)}
	judge := NewJudge(histories...)
	offset := int64(0)
	// Each key for itself is in order.
	for worker := range shape.Workers {
		for _, history := range histories {
			history.Batches[worker] = []Batch{{Attempts: 1}, {Attempts: 1}}
			for key := range shape.Keys {
				for number := range 2 {
					e := Event{Load: history.ID, Worker: worker, Key: key, Number: number}
					offset++
					judge.See(Copy{ID: []byte(e.UUID().String()), Value: message(e, 0), Offset: offset})
				}
			}
		}
	}
	v := judge.Verdict()
	require.Equal(t, "16 0 0 0", fmt.Sprint(v.Acked, v.Lost, v.Duplicated, v.Reordered))
}

func TestJudgeHasNoOrderBetweenPartitions(t *testing.T) {
	history := NewHistory(Shape{Workers: 1, Keys: 1, PerKey: 3})
	history.Batches[0] = []Batch{{Attempts: 1}}
	judge := NewJudge(history)
	for number := range 3 {
		e := Event{Load: history.ID, Number: number}
		judge.See(Copy{
			ID: []byte(e.UUID().String()), Value: message(e, 0), Offset: int64(number), Partition: int32(number / 2),
		})
	}
	v := judge.Verdict()
	require.Equal(t, "0 1", fmt.Sprint(v.Lost, v.Reordered))
}

func TestJudgeTakesADeadLetterForArrived(t *testing.T) {
	history := NewHistory(Shape{Workers: 1, Keys: 1, PerKey: 2})
	history.Batches[0] = []Batch{{Attempts: 1}}
	judge := NewJudge(history)
	for number := range 2 {
		e := Event{Load: history.ID, Number: number}
		judge.See(Copy{
			ID: []byte(e.UUID().String()), Value: message(e, 0), Offset: int64(1 - number), DLQ: number == 0,
		})
	}
	v := judge.Verdict()
	require.Equal(t, "0 0 1", fmt.Sprint(v.Lost, v.Reordered, v.DLQ))
}

func TestJudgeTellsTheGuiltyFromTheInnocent(t *testing.T) {
	history := NewHistory(Shape{Workers: 1, Keys: 2, PerKey: 2, Pad: 3, Every: 2, Large: 9, Reason: "too_large"})
	history.Batches[0] = []Batch{{Attempts: 1}}
	judge := NewJudge(history)
	see := func(key, number, pad int, reason string) {
		e := Event{Load: history.ID, Key: key, Number: number}
		judge.See(Copy{ID: []byte(e.UUID().String()), Value: message(e, pad), DLQ: reason != "", Reason: reason})
	}
	see(0, 1, 9, "too_large") // The only guilty one.
	v := judge.Verdict()
	require.Equal(t, "3 1 0 0", fmt.Sprint(v.Lost, v.DLQ, v.Innocent, v.Mangled))
	see(0, 1, 9, "invalid")
	see(0, 1, 3, "too_large") // Not the event that was sent.
	see(1, 1, 3, "too_large")
	see(0, 0, 3, "too_large")
	judge.SeeLetter(Event{Load: history.ID, Key: 1}.UUID().String(), "too_large")
	judge.SeeLetter("nobody's", "too_large")
	v = judge.Verdict()
	require.Equal(t, "0 5 4 1 1", fmt.Sprint(v.Lost, v.DLQ, v.Innocent, v.Mangled, v.Unknown))
}

func TestJudgeExcusesBatches(t *testing.T) {
	history := NewHistory(Shape{Workers: 1, Keys: 1, PerKey: 2})
	at := time.Unix(1000, 0)
	for i := range 4 {
		history.Batches[0] = append(history.Batches[0],
			Batch{Attempts: 1, At: at.Add(time.Duration(i) * time.Minute), Latency: time.Second})
	}
	judge := NewJudge(history)
	for _, number := range []int{0, 5} {
		e := Event{Load: history.ID, Number: number}
		judge.See(Copy{ID: []byte(e.UUID().String()), Value: message(e, 0), Offset: int64(number)})
	}
	judge.ExcuseBatches(func(b Batch) bool { return b.Sent().Before(at) })
	judge.ExcuseBatches(func(b Batch) bool { return b.Sent().Equal(at.Add(time.Minute - time.Second)) })
	v := judge.Verdict()
	require.Equal(t, "8 3 3", fmt.Sprint(v.Acked, v.Lost, v.Excused))
}

func TestJudgeLooksAtEachPartitionWhenKeysMove(t *testing.T) {
	for _, test := range []struct {
		name      string
		places    []int32 // of the events in the order in which they are written
		numbers   []int
		reordered int
	}{
		{"in order across a move", []int32{0, 0, 1, 1}, []int{0, 1, 2, 3}, 0},
		{"not in order across a move", []int32{1, 1, 0, 0}, []int{2, 3, 0, 1}, 0},
		{"not in order in the new partition", []int32{0, 0, 1, 1}, []int{0, 1, 3, 2}, 1},
		{"not in order in the old partition", []int32{0, 0, 1, 1}, []int{1, 0, 2, 3}, 1},
		{"a copy of each in either", []int32{0, 0, 0, 0, 1, 1, 1, 1}, []int{0, 1, 2, 3, 0, 1, 2, 3}, 0},
		{"a copy of each in either, in order in one", []int32{0, 0, 0, 0, 1, 1, 1, 1},
			[]int{0, 1, 2, 3, 0, 2, 1, 3}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			history := NewHistory(Shape{Workers: 1, Keys: 1, PerKey: 1})
			history.Batches[0] = []Batch{{Attempts: 1}, {Attempts: 1}, {Attempts: 1}, {Attempts: 1}}
			judge := NewJudge(history)
			judge.KeysMove()
			for i, number := range test.numbers {
				e := Event{Load: history.ID, Number: number}
				judge.See(Copy{
					ID: []byte(e.UUID().String()), Value: message(e, 0), Offset: int64(i), Partition: test.places[i],
				})
			}
			v := judge.Verdict()
			require.Equal(t, fmt.Sprint(0, len(test.numbers)-4, test.reordered),
				fmt.Sprint(v.Lost, v.Duplicated, v.Reordered))
		})
	}
}

func TestJudgeTellsTopicsApart(t *testing.T) {
	history := NewHistory(Shape{Workers: 1, Keys: 1, PerKey: 2})
	history.Batches[0] = []Batch{{Attempts: 1}}
	judge := NewJudge(history)
	for number, topic := range []string{"a", "b"} {
		e := Event{Load: history.ID, Number: number}
		judge.See(Copy{ID: []byte(e.UUID().String()), Value: message(e, 0), Offset: int64(number), Topic: topic})
	}
	require.Equal(t, 1, judge.Verdict().Reordered)
}

func TestJudgeTakesNoDamagedCopyForArrived(t *testing.T) {
	history := NewHistory(Shape{Workers: 1, Keys: 1, PerKey: 4, Pad: 20})
	history.Batches[0] = []Batch{{Attempts: 1}}
	judge := NewJudge(history)
	see := func(number int, value []byte) {
		judge.See(Copy{
			ID: []byte(Event{Load: history.ID, Number: number}.UUID().String()), Value: value, Offset: int64(number),
		})
	}
	see(0, message(Event{Load: history.ID}, 20))
	flipped := message(Event{Load: history.ID, Number: 1}, 20)
	flipped[len(flipped)-8-len(`"}}`)] ^= 1
	see(1, flipped)
	see(2, message(Event{Load: history.ID, Number: 1}, 20)) // Another event under this one's id.
	whole := message(Event{Load: history.ID, Number: 3}, 20)
	see(3, whole[:len(whole)-1])
	judge.See(Copy{ID: []byte("018f0000-0000-7000-8000-000000000000"), Value: whole})
	judge.See(Copy{Value: whole})
	judge.See(Copy{ID: []byte(Event{Load: history.ID ^ 1}.UUID().String()), Value: whole})
	judge.Excuse(Event{Load: history.ID, Number: 2})
	judge.Excuse(Event{Load: history.ID, Number: 0})
	v := judge.Verdict()
	require.Equal(t, "4 2 1 3 3", fmt.Sprint(v.Acked, v.Lost, v.Damaged, v.Mangled, v.Unknown))
}

func TestEventsAreFoundAgainByTheirUUID(t *testing.T) {
	for _, e := range []Event{{}, {Load: 1<<32 - 1, Worker: 1<<16 - 1, Key: 1<<16 - 1, Number: 1<<32 - 1},
		{1, 2, 3, 4}} {
		found, ok := EventOf(e.UUID())
		require.True(t, ok)
		require.Equal(t, e, found)
		require.Equal(t, "VERSION_4 RFC4122", fmt.Sprint(e.UUID().Version(), " ", e.UUID().Variant()))
	}
	id := Event{1, 2, 3, 4}.UUID()
	id[7] = 1
	_, ok := EventOf(id)
	require.False(t, ok)
}

func TestP99IsTheLatencyThatOneInAHundredExceeds(t *testing.T) {
	history := NewHistory(Shape{Workers: 2, Keys: 1, PerKey: 1})
	require.Zero(t, P99(history))
	for i := range 1000 {
		history.Batches[i%2] = append(history.Batches[i%2],
			Batch{Latency: time.Duration(1000-i) * time.Millisecond, At: time.UnixMilli(int64(i))})
	}
	require.Equal(t, 990*time.Millisecond, P99(history))
	require.Equal(t, 1000*time.Millisecond, P99(history.Between(time.UnixMilli(0), time.UnixMilli(10))))
	require.Equal(t, 100, history.Between(time.UnixMilli(100), time.UnixMilli(200)).Acked())
}

func TestLineHasTheIssuesForm(t *testing.T) {
	v := Verdict{
		Acked: 123400, Duplicated: 12, P99: 14300 * time.Microsecond, ByAck: map[string]int{"spool": 7, "kafka": 1},
	}
	require.Equal(t, "kafka-stopped/auto       acked=123400 lost=0 duplicated=12 reordered=0 innocent=0 "+
		"p99=14ms spooled=7 fsyncs=3", v.Line("kafka-stopped/auto", "fsyncs=3"))
}

func TestBatchesAreJSONWithEventsInTurns(t *testing.T) {
	l := &Load{history: NewHistory(Shape{Workers: 3, Keys: 2, PerKey: 2, Pad: 5})}
	var body struct {
		Batch []struct {
			UUID       string
			DistinctID string `json:"distinct_id"`
			Properties struct {
				N   int
				Pad string
			}
		}
	}
	require.NoError(t, json.NewDecoder(bytes.NewReader(l.body(nil, "phc_chaos", 2, 7))).Decode(&body))
	require.Len(t, body.Batch, 4)
	for i, event := range body.Batch {
		e := Event{Load: l.history.ID, Worker: 2, Key: i % 2, Number: 14 + i/2}
		require.Equal(t, e.UUID().String(), event.UUID)
		require.Equal(t, e.DistinctID(), event.DistinctID)
		require.Equal(t, e.Number, event.Properties.N)
		require.Len(t, event.Properties.Pad, 5)
	}
}
