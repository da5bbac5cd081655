//go:build chaos && linux

package chaos

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/proof"
)

const (
	mib = 1 << 20
	// leastRatio is for the rate without Kafka against the rate with Kafka. leastDrain is for the rate of the drain
	// against that of the live load at the same time. mostP99 is for the live p99 during the drain against that without
	// a drain.
	leastRatio, leastDrain, mostP99 = 0.5, 3.0, 2.0
	// leastLive is how much of the live load has to be acknowledged during the drain.
	leastLive = 0.9
	// shortDrain replaces leastDrain in the short run, whose drain has only seconds.
	shortDrain = 2.0
	// liveShare is the live load during the drain, as a part of the highest rate that the service can take.
	liveShare = 0.1
	// mostRestart and mostMemory are the limits for a restart with a full spool. Where an empty one takes long, a full
	// one may take slowerRestart times as long.
	mostRestart   = time.Second
	slowerRestart = 2
	mostMemory    = 200 * mib
	// restarts is how often a restart is measured: the figure is the least.
	restarts = 4
	// mostAway is the limit of memory for any time without Kafka, whatever clients send: the bodies that may be in
	// flight, Kafka's buffer, and the rest.
	mostAway = 700 * mib
)

// p99Floor returns a latency that is always good enough for the p99 during the drain. Timers and the scheduler of a
// busy machine are not the service's doing, and they disturb the few requests of a short run more.
func p99Floor() time.Duration { return shortOr(40*time.Millisecond, 5*time.Millisecond) }

// full is a load that sends as fast as the service answers.
var full = proof.Shape{Workers: 64, Keys: 4, PerKey: 10, Pad: 150}

// outage is what the service does in an outage, in figures.
type outage struct {
	// without is the rate at which it takes events without Kafka, as a part of the rate with Kafka.
	without float64
	// drain is the rate of the drain, and live that of the load beside it, as parts of the rate of that load and of the
	// rate at which it is sent. slower is the latency of that load beside the drain, as a part of that without a drain.
	drain, live, slower float64
}

// borne reports which figures are as they have to be.
func (o outage) borne() [4]bool {
	return [4]bool{
		o.without >= leastRatio, o.drain >= shortOr(shortDrain, leastDrain), o.live >= leastLive, o.slower <= mostP99,
	}
}

// mostOutages is how many outages are played at most.
const mostOutages = 6

// TestAnOutageIsBorne measures the cost of an outage of Kafka in mode auto. It measures the highest rate that the
// service takes with Kafka and, in the same run and under the same load, without Kafka. When Kafka is back, it measures
// the drain and the latency of a moderate live load beside the drain. At last it measures the latency of the same load
// without a drain.
//
// The figures compare one second with another one, and the machine may do other work in one of them. So the outage is
// played until each figure was good once. What the service itself does to a figure it does in every outage.
func TestAnOutageIsBorne(t *testing.T) {
	s := newStage(t, scenario{name: "outage", modes: []string{modeAuto}, shape: full})
	for _, service := range s.services {
		require.NoError(t, service.run())
		var histories []*proof.History
		// The first requests meet a cold service.
		load := service.load(full, 0)
		last(2 * time.Second)
		histories = append(histories, load.Stop())
		var all []outage
		good := [4]bool{}
		for len(all) < mostOutages && good != [4]bool{true, true, true, true} {
			o, played := s.outage(t, service)
			histories = append(histories, played...)
			all = append(all, o)
			for i, yes := range o.borne() {
				good[i] = good[i] || yes
			}
		}
		assert.True(t, good[0], "without Kafka the service takes too little: %+v", all)
		assert.True(t, good[1], "the drain is too slow: %+v", all)
		assert.True(t, good[2], "the drain keeps the live load back: %+v", all)
		assert.True(t, good[3], "the drain slows the live load down: %+v", all)

		v, err := s.finish(service, histories...)
		s.pass(t, service, v)
		require.NoError(t, err)
	}
}

// outage plays an outage of Kafka.
func (s *stage) outage(t *testing.T, service *service) (o outage, histories []*proof.History) {
	perSecond := func(history *proof.History, d time.Duration) float64 {
		return float64(history.Acked()) / d.Seconds()
	}
	measure := shortOr(4*time.Second, 30*time.Second)
	from := time.Now()
	load := service.load(full, 0)
	last(measure)
	cut := time.Now()
	s.kafka.cut()
	away := shortOr(2*time.Second, 30*time.Second)
	last(away)
	back := time.Now()
	history := load.Stop()
	histories = append(histories, history)
	with := perSecond(history.Between(from, cut), cut.Sub(from))
	without := perSecond(history.Between(cut, back), back.Sub(cut))
	o.without = without / with
	fmt.Printf("outage/%s rate_with=%.0f/s rate_without=%.0f/s ratio=%.2f away=%s\n", service.mode, with, without,
		o.without, away)

	// The drain begins with the live load.
	live := with * liveShare
	records, err := service.metric(metricRecords)
	require.NoError(t, err)
	require.Positive(t, records, "nothing is in the spool after an outage")
	drained, err := service.metric(metricDrained)
	require.NoError(t, err)
	load = service.load(full, live)
	require.NoError(t, s.kafka.mend())
	// The connection to Kafka is made again within seconds, for each partition by itself (sarama leaves a failed
	// one alone for up to ten). That time is no part of the drain's rate, which counts only after a tenth of the
	// records.
	require.NoError(t, process.Poll(flowPatience, time.Millisecond, func() (bool, error) {
		now, err := service.metric(metricDrained)
		flows := now >= drained+records/10
		if flows {
			drained = now
		}
		return flows, err
	}))
	began := time.Now()
	var left float64
	require.NoError(t, process.Poll(15*time.Minute, 20*time.Millisecond, func() (bool, error) {
		var err error
		left, err = service.metric(metricRecords)
		return left <= 0, err
	}), "%.0f records are left", left)
	ended := time.Now()
	now, err := service.metric(metricDrained)
	require.NoError(t, err)
	last(time.Second)
	history = load.Stop()
	load = service.load(full, live)
	last(measure)
	calm := load.Stop()
	histories = append(histories, history, calm)
	drain := (now - drained) / ended.Sub(began).Seconds()
	liveThen := perSecond(history.Between(began, ended), ended.Sub(began))
	p99Drain, p99Normal := proof.P99(history.Between(began, ended)), proof.P99(calm)
	o.drain, o.live = drain/liveThen, liveThen/live
	if p99Drain > p99Floor() {
		o.slower = float64(p99Drain) / float64(p99Normal)
	}
	fmt.Printf("drain live=%.0f/s drain=%.0f/s ratio=%.1f p99_normal=%s p99_drain=%s records=%.0f took=%s\n",
		liveThen, drain, o.drain, proof.Short(p99Normal), proof.Short(p99Drain), records, proof.Short(ended.Sub(began)))
	return o, histories
}

// TestARestartWithAFullSpoolTakesNoTime fills the spool while Kafka is away, kills the service and starts it again,
// without Kafka and with it. It measures the most memory that the process had until the spool was empty. The time of a
// start is the least of several, since the machine may do other work.
func TestARestartWithAFullSpoolTakesNoTime(t *testing.T) {
	goal := float64(256 * mib)
	if *long {
		goal = 5 << 30
	}
	s := newStage(t, scenario{
		name: "restart", modes: []string{modeAuto}, environ: []string{"CAPTURE_DELIVERY__SPOOL__MAX_BYTES=8GiB"},
	})
	for _, service := range s.services {
		empty := s.leastStart(t, service)
		shape := full
		shape.Pad = 2000
		load := service.load(shape, 0)
		s.loads[service] = load
		require.NoError(t, process.Poll(flowPatience, 10*time.Millisecond,
			func() (bool, error) { return load.Acked() > 1000, nil }))
		s.kafka.cut()
		var bytes float64
		require.NoError(t, process.Poll(10*time.Minute, 20*time.Millisecond, func() (bool, error) {
			var err error
			bytes, err = service.metric(metricBytes)
			return bytes >= goal, err
		}), "%.0f bytes in the spool", bytes)
		// The kill comes under load, as a real one would.
		service.kill()
		delete(s.loads, service)
		history := load.Stop()
		for _, kafka := range []string{"away", "back"} {
			if kafka == "back" {
				service.kill()
				require.NoError(t, s.kafka.mend())
			}
			ready := s.leastStart(t, service)
			bytes, err := service.metric(metricBytes)
			require.NoError(t, err)
			if kafka == "back" {
				require.NoError(t, service.awaitDrain(10*time.Minute))
			} else {
				last(2 * time.Second)
			}
			memory, err := service.Memory(process.MaxResident)
			require.NoError(t, err)
			line := fmt.Sprintf("restart/%s kafka=%s spool=%.2fGiB ready=%s rss=%dMiB", service.mode, kafka,
				bytes/(1<<30), proof.Short(ready), memory/mib)
			fmt.Println(line)
			assert.Less(t, ready, max(mostRestart, slowerRestart*empty), line)
			assert.Less(t, memory, int64(mostMemory), line)
			if kafka == "away" {
				assert.Greater(t, bytes, 0.9*goal, "the spool is not what it was: %s", line)
			}
		}
		v, err := s.finish(service, history)
		s.pass(t, service, v)
		require.NoError(t, err)
	}
}

// leastStart starts a service that does not run several times, kills it in between, and returns the least time until it
// was ready.
func (s *stage) leastStart(t *testing.T, service *service) (least time.Duration) {
	for i := range restarts {
		if i > 0 {
			service.kill()
		}
		started := time.Now()
		require.NoError(t, service.start())
		require.NoError(t, service.awaitAnswer("/_readiness"))
		if took := time.Since(started); i == 0 || took < least {
			least = took
		}
	}
	return least
}

// TestMemoryIsBoundedWithoutKafka sends all that the service takes while Kafka is away, to a service in each mode at a
// time.
func TestMemoryIsBoundedWithoutKafka(t *testing.T) {
	away := shortOr(4*time.Second, 10*time.Minute)
	s := newStage(t, scenario{
		name: "away", modes: all, shape: full, environ: []string{"CAPTURE_DELIVERY__SPOOL__MAX_BYTES=2GiB"},
	})
	require.NoError(t, s.each((*service).run))
	for _, service := range s.services {
		s.loads[service] = service.load(full, 0)
	}
	require.NoError(t, s.flow())
	s.kafka.cut()
	require.NoError(t, s.each(func(service *service) error {
		acked := s.loads[service].Acked()
		// The figure at half time tells a plateau from a slope.
		last(away / 2)
		half, err := service.Memory(process.MaxResident)
		if err != nil {
			return err
		}
		last(away / 2)
		whole, err := service.Memory(process.MaxResident)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("away/%s away=%s acked=%.0f/s rss_half=%dMiB rss_max=%dMiB",
			service.mode, away, float64(s.loads[service].Acked()-acked)/away.Seconds(), half/mib, whole/mib)
		fmt.Println(line)
		if whole >= mostAway {
			return fmt.Errorf("more than %d MiB: %s", mostAway/mib, line)
		}
		return nil
	}))
	verdicts, err := func() ([]proof.Verdict, error) {
		if err := s.kafka.mend(); err != nil {
			return nil, err
		}
		return s.stopAndJudge()
	}()
	for i, v := range verdicts {
		s.pass(t, s.services[i], v)
	}
	require.NoError(t, err)
}
