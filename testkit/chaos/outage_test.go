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
	// shortDrain replaces leastDrain in the short run, whose drain has only seconds.
	shortDrain = 2.0
	// liveShare is the live load during the drain, as a part of the highest rate that the service can take.
	liveShare = 0.1
	// mostRestart and mostMemory are the limits for a restart with a full spool.
	mostRestart = time.Second
	mostMemory  = 200 * mib
	// mostAway is the limit of memory for any time without Kafka, whatever clients send: the bodies that may be in
	// flight, Kafka's buffer, and the rest.
	mostAway = 700 * mib
)

// p99Floor returns a latency that is always good enough for the p99 during the drain. Timers and the scheduler of a
// busy machine are not the service's doing, and they disturb the few requests of a short run more.
func p99Floor() time.Duration { return shortOr(40*time.Millisecond, 5*time.Millisecond) }

// full is a load that sends as fast as the service answers.
var full = proof.Shape{Workers: 64, Keys: 4, PerKey: 10, Pad: 150}

// TestAnOutageIsBorne measures the cost of an outage of Kafka in mode auto. It measures the highest rate that the
// service takes with Kafka and, in the same run and under the same load, without Kafka. When Kafka is back, it measures
// the drain and the latency of a moderate live load beside the drain. At last it measures the latency of the same load
// without a drain.
func TestAnOutageIsBorne(t *testing.T) {
	s := newStage(t, scenario{name: "outage", modes: []string{modeAuto}, shape: full})
	for _, service := range s.services {
		require.NoError(t, service.run())
		var histories []*proof.History
		during := func(rate float64, d time.Duration) *proof.History {
			load := service.load(full, rate)
			last(d)
			history := load.Stop()
			histories = append(histories, history)
			return history
		}
		perSecond := func(history *proof.History, d time.Duration) float64 {
			return float64(history.Acked()) / d.Seconds()
		}

		// The first requests meet a cold service.
		during(0, 2*time.Second)
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
		line := fmt.Sprintf("outage/%s rate_with=%.0f/s rate_without=%.0f/s ratio=%.2f away=%s", service.mode, with,
			without, without/with, away)
		fmt.Println(line)
		assert.GreaterOrEqual(t, without/with, leastRatio, line)

		// The drain begins with the live load.
		live := with * liveShare
		records, err := service.metric(metricRecords)
		require.NoError(t, err)
		assert.Positive(t, records, "nothing is in the spool after an outage")
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
		histories = append(histories, history)
		drain := (now - drained) / ended.Sub(began).Seconds()
		liveThen := perSecond(history.Between(began, ended), ended.Sub(began))
		p99Drain := proof.P99(history.Between(began, ended))
		p99Normal := proof.P99(during(live, measure))
		line = fmt.Sprintf("drain live=%.0f/s drain=%.0f/s ratio=%.1f p99_normal=%s p99_drain=%s records=%.0f took=%s",
			liveThen, drain, drain/liveThen, proof.Short(p99Normal), proof.Short(p99Drain), records,
			proof.Short(ended.Sub(began)))
		fmt.Println(line)
		assert.GreaterOrEqual(t, drain/liveThen, shortOr(shortDrain, leastDrain), line)
		assert.GreaterOrEqual(t, liveThen, 0.9*live, line)
		assert.LessOrEqual(t, p99Drain, max(time.Duration(mostP99*float64(p99Normal)), p99Floor()), line)

		v, err := s.finish(service, histories...)
		s.pass(t, service, v)
		require.NoError(t, err)
	}
}

// TestARestartWithAFullSpoolTakesNoTime fills the spool while Kafka is away, kills the service and starts it again,
// without Kafka and with it. It measures the most memory that the process had until the spool was empty.
func TestARestartWithAFullSpoolTakesNoTime(t *testing.T) {
	goal := float64(256 * mib)
	if *long {
		goal = 5 << 30
	}
	s := newStage(t, scenario{
		name: "restart", modes: []string{modeAuto}, environ: []string{"CAPTURE_DELIVERY__SPOOL__MAX_BYTES=8GiB"},
	})
	for _, service := range s.services {
		require.NoError(t, service.run())
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
			started := time.Now()
			require.NoError(t, service.start())
			require.NoError(t, service.awaitAnswer("/_readiness"), "with Kafka %s", kafka)
			ready := time.Since(started)
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
			assert.Less(t, ready, mostRestart, line)
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
