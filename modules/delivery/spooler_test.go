package delivery

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber-go/tally/v4"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/produce"
)

// idleSpooler returns a spooler without a running drain.
func idleSpooler(t *testing.T) *spooler {
	t.Helper()
	cfg := scriptConfig(t, modeAuto)
	d := newScripted(t, cfg, newScript(t), tally.NoopScope)
	opened, err := cfg.Spool.open(nil, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, opened.Close()) })
	return newSpooler(d, d.topic("main"), opened.Log("main"))
}

func (s *spooler) add(t *testing.T, held int, values ...string) (first uint64) {
	t.Helper()
	s.begin(held)
	var records [][]byte
	for _, value := range values {
		records = append(records, appendRecord(nil, &produce.Message{Topic: "main", Value: []byte(value)}, time.Now()))
	}
	first, err := s.log.Append(t.Context(), records)
	require.NoError(t, err)
	s.end(0)
	return first
}

func TestNothingIsSentWhileAMessageIsHeld(t *testing.T) {
	t.Parallel()
	s := idleSpooler(t)
	require.False(t, s.topic.isWaiting())
	first := s.add(t, 2, "a", "b", "c")
	require.True(t, s.topic.isWaiting())
	require.False(t, s.isEmpty())
	require.False(t, s.drainable())
	s.report(first, nil)
	require.False(t, s.drainable(), "a report that is not settled")
	s.settle()
	require.False(t, s.drainable(), "the other one has none")
	s.report(first+1, errAway)
	s.settle()
	require.True(t, s.drainable())
	require.EqualValues(t, 2, s.log.Stats().Records, "what was acknowledged is taken out, and what was not stays")
	s.log.Done(first+1, first+2)
	s.rest()
	require.False(t, s.topic.isWaiting())
	require.True(t, s.oldest().IsZero())
}

func TestATopicWaitsFromTheAnnouncementOfARecord(t *testing.T) {
	t.Parallel()
	s := idleSpooler(t)
	s.begin(1)
	s.begin(0)
	require.True(t, s.topic.isWaiting())
	require.False(t, s.isEmpty(), "a message is held")
	s.rest()
	require.True(t, s.topic.isWaiting(), "both may still add records")
	s.end(1) // the append has failed
	require.True(t, s.topic.isWaiting())
	require.True(t, s.isEmpty(), "the other one has nothing in the log yet")
	s.end(0)
	require.False(t, s.topic.isWaiting(), "it was given up")
}

// The drain reads the record of a held message after it has seen that no message is held, and before it sends.
func TestWhatWasReadOfAHeldMessageIsForgotten(t *testing.T) {
	t.Parallel()
	s := idleSpooler(t)
	c := newChunk(s)
	first := s.add(t, 0, "a")
	require.True(t, s.drainable())
	held := s.add(t, 1, "b")
	loaded, err := c.load()
	require.NoError(t, err)
	require.True(t, loaded)
	require.Len(t, c.messages, 2)
	require.False(t, s.drainable())
	c.unload()
	s.report(held, nil)
	s.settle()
	loaded, err = c.load()
	require.NoError(t, err)
	require.True(t, loaded)
	require.Equal(t, []uint64{first}, c.seqs)
	require.Equal(t, "a", string(c.messages[0].Value))
}

func TestReportsThatComeWhileOthersAreSettledAreKept(t *testing.T) {
	t.Parallel()
	s := idleSpooler(t)
	const n = 200
	values := make([]string, n)
	first := s.add(t, n, values...)
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		for i := range uint64(n) {
			s.report(first+i, nil)
		}
	}()
	settled := make(chan struct{})
	go func() { // as Stop does while run settles
		defer close(settled)
		for range n {
			s.settle()
		}
	}()
	for range n {
		s.settle()
	}
	<-reported
	<-settled
	s.settle()
	require.Zero(t, s.log.Stats().Records)
	require.Zero(t, s.held)
}

// Under a steady load there is always a request that is about to append while its topic waits, and so the topic goes on
// waiting. Therefore a request that could go to Kafka is made to wait for the last of these appends.
func TestARequestWaitsForTheLastRecordsAndThenGoesToKafka(t *testing.T) {
	t.Parallel()
	s := idleSpooler(t)
	d := s.d
	d.times.doorShut = time.Minute
	s.begin(0) // a request that is about to append
	s.shut()
	require.Nil(t, s.topic.door.Load(), "no request wants to go to Kafka")
	s.topic.eager.Store(true)
	s.shut()
	require.NotNil(t, s.topic.door.Load())

	passed := make(chan plan)
	go func() {
		r := d.requests.get(d, d.terms.Now())
		r.fill([]produce.Message{{Topic: "main"}})
		r.pass(t.Context())
		admitted, _ := d.admit(r.uses[0].topic, modeAuto)
		passed <- admitted
	}()
	select {
	case <-passed:
		require.Fail(t, "the door is shut")
	case <-time.After(10 * time.Millisecond):
	}
	s.end(0) // the last append has ended
	require.Equal(t, planProduce, <-passed)
	require.Nil(t, s.topic.door.Load())
	require.False(t, s.topic.isWaiting())
}

// A door that stays shut would hold up requests.
func TestTheDoorIsOpenWhileAMessageIsHeld(t *testing.T) {
	t.Parallel()
	s := idleSpooler(t)
	s.add(t, 1, "a")
	s.topic.eager.Store(true)
	s.shut()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.run(ctx)
	}()
	require.Eventually(t, func() bool { return s.topic.door.Load() == nil }, time.Minute, time.Millisecond)
	cancel()
	<-ended
}
