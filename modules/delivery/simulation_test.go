package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/delivery/spool"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
)

// simulation is a service that lives through the steps that a rapid test draws.
type simulation struct {
	*rapid.T
	t     *testing.T
	cfg   Config
	kafka *script
	d     *Delivery
	other *spool.Spool // another process that has the directory; nil without one

	next   int
	safe   map[string][]string // the events that were answered with kafka or spool, by topic and user, in order
	unsafe map[string][]string // the same with the events of memory among them
}

// Whatever Kafka, the disk and the process do: an event that was answered with kafka or spool arrives, or is a dead
// letter. The events of a user arrive in the order of the requests. An event that memory has taken arrives or is
// counted as lost.
func TestWhatWasAnswered200ArrivesInOrderWhateverHappens(t *testing.T) {
	t.Parallel()
	dir, run := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		s := &simulation{T: rt, t: t, kafka: newScript(t), safe: map[string][]string{}, unsafe: map[string][]string{}}
		s.cfg = DefaultConfig()
		s.cfg.Spool.Dir = fmt.Sprintf("%s/%d", dir, run)
		s.cfg.Spool.Reserve, s.cfg.Spool.SegmentBytes = 0,
			configs.ByteSize(rapid.SampledFrom([]int{500, 5000}).Draw(rt, "segment"))
		s.cfg.Spool.MaxBytes = configs.ByteSize(rapid.SampledFrom([]int{4000, 1 << 30}).Draw(rt, "max"))
		s.cfg.SpoolAfter, s.cfg.Timeout, s.cfg.StopTimeout = time.Millisecond, 3*time.Millisecond, 3*time.Millisecond
		s.start()
		steps := []string{"write", "write", "write", "write", "hold", "ack", "fail", "away", "back", "refuse",
			"restart", "locked"}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			s.step(rapid.SampledFrom(steps).Draw(rt, "step"))
		}
		s.end()
	})
}

func (s *simulation) start() {
	mode := func(label string) string { return rapid.SampledFrom(modeNames[:]).Draw(s.T, label) }
	s.cfg.Ack, s.cfg.Lanes.Historical, s.cfg.Lanes.Exceptions = mode("ack"), mode("historical"), mode("exceptions")
	scope := tally.NewTestScope("", nil)
	s.d = newScripted(s.T, s.cfg, s.kafka, scope)
	require.NoError(s.T, s.d.Start(context.Background()))
}

func (s *simulation) stop() {
	require.NoError(s.T, s.d.Stop(context.Background()))
	require.NoError(s.T, s.kafka.Stop(context.Background())) // fails the held messages
	s.d.work.Wait()
}

func (s *simulation) unlock() {
	if s.other != nil {
		require.NoError(s.T, s.other.Close())
		s.other = nil
	}
}

func (s *simulation) step(name string) {
	switch name {
	case "write":
		s.write()
	case "hold":
		s.kafka.hold()
	case "ack":
		s.kafka.back()
		s.kafka.release()
	case "fail":
		s.kafka.always(errAway)
		s.kafka.release()
		s.kafka.back()
	case "away":
		s.kafka.always(errAway)
		s.kafka.release()
	case "back":
		s.kafka.back()
	case "refuse":
		dead := rapid.SampledFrom([]error{nil, errAway, errRefused}).Draw(s.T, "dead letters")
		s.kafka.set(func() {
			s.kafka.judge = func(m *produce.Message) error {
				switch {
				case m.Topic == scriptTopics.DLQ:
					return dead
				case isGuilty(nameOf(m)):
					return errRefused
				}
				return nil
			}
		})
	case "restart", "locked":
		s.stop()
		s.unlock()
		if name == "locked" {
			other, err := spool.Open(spool.Config{Dir: s.cfg.Spool.Dir, MaxBytes: 1 << 30, SegmentBytes: 1 << 20,
				MaxPending: 1 << 20}, zap.NewNop())
			require.NoError(s.T, err)
			s.other = other
		}
		s.start()
	}
}

func isGuilty(name string) bool { return strings.HasSuffix(name, "7") || strings.HasSuffix(name, "4") }

// write makes two users send events at the same time, and notes the answers.
func (s *simulation) write() {
	users := []string{"x", "y"}[:rapid.IntRange(1, 2).Draw(s.T, "users")]
	batches := make([]*events.Batch, len(users))
	for i, user := range users {
		batches[i] = batchOf(events.LaneMain, user)
		for range rapid.IntRange(1, 4).Draw(s.T, "events") {
			s.next++
			one := batchOf(events.LaneMain, user, fmt.Sprintf("%04d", s.next))
			one.Events[0].Lane = rapid.SampledFrom([]events.Lane{
				events.LaneMain, events.LaneMain, events.LaneHistorical, events.LaneExceptions, events.LaneHeatmaps,
			}).Draw(s.T, "lane")
			batches[i].Events = append(batches[i].Events, one.Events[0])
		}
	}
	var writers sync.WaitGroup
	for _, batch := range batches {
		writers.Go(func() { s.d.Write(context.Background(), batch) })
	}
	writers.Wait()
	for _, batch := range batches {
		require.Zero(s.T, batch.Pending())
		for i := range batch.Events {
			event := &batch.Events[i]
			if event.Outcome.State != events.StateAccepted {
				require.Equal(s.T, events.StateFailed, event.Outcome.State)
				continue
			}
			topic := "main"
			switch event.Lane {
			case events.LaneExceptions:
				topic = "exceptions"
			case events.LaneHeatmaps:
				topic = "heatmaps"
			}
			of := topic + "/" + event.DistinctID
			s.unsafe[of] = append(s.unsafe[of], event.Name)
			if batch.Ack != events.AckMemory { // of a request with memory in it nobody can tell which events are meant
				s.safe[of] = append(s.safe[of], event.Name)
			}
		}
	}
}

// end lets every event arrive, and compares.
func (s *simulation) end() {
	s.unlock()
	s.kafka.back()
	s.kafka.release()
	eventually(s.T, func() bool { return s.d.spooling.isOpen() && !s.d.waits() && s.kafka.held() == 0 },
		"the spool is emptied")
	dead := s.dead()
	s.stop()
	arrived := map[string][]string{}
	for i := range s.kafka.stored {
		m := &s.kafka.stored[i]
		if m.Topic == scriptTopics.DLQ {
			dead = append(dead, nameOf(m))
			continue
		}
		of := m.Topic + "/" + string(m.Key[strings.IndexByte(string(m.Key), ':')+1:])
		if name := nameOf(m); !slices.Contains(arrived[of], name) {
			arrived[of] = append(arrived[of], name)
		}
	}
	for of, names := range s.safe {
		for _, name := range names {
			if !slices.Contains(arrived[of], name) {
				require.True(s.T, isGuilty(name) && slices.Contains(dead, name),
					"%s of %s was answered 200 and is lost", name, of)
			}
		}
	}
	for of, names := range s.unsafe {
		// An event that Kafka has refused once may come again when Kafka no longer refuses it.
		innocent := func(list, among []string) string {
			return fmt.Sprint(slices.DeleteFunc(slices.Clone(list),
				func(name string) bool { return isGuilty(name) || !slices.Contains(among, name) }))
		}
		require.Equal(s.T, innocent(names, arrived[of]), innocent(arrived[of], names), "the order of %s", of)
	}
}

// dead returns the names of the dead letters on the disk.
func (s *simulation) dead() []string {
	var names []string
	var chunk spool.Chunk
	log := s.d.spooling.opened.Load().Log(deadLetterLog)
	for {
		require.NoError(s.T, log.Read(&chunk, chunkBytes))
		if len(chunk.Records) == 0 {
			return names
		}
		for _, record := range chunk.Records {
			var m produce.Message
			require.NoError(s.T, readRecord(record.Payload, &m))
			names = append(names, nameOf(&m))
		}
	}
}
