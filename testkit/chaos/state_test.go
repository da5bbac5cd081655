//go:build chaos && linux

package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/proof"
	"github.com/opencapture/capture/testkit/redisserver"
)

// everything turns on all features that use the store, with limits that no load reaches but the one of hog.
var everything = []string{
	"CAPTURE_AUTH__MODE=known", "CAPTURE_DEDUP__WINDOW=1h",
	"CAPTURE_QUOTA__QUOTAS=events=1000000000/month", "CAPTURE_QUOTA__RATES=events=100000/s",
}

// closed has every feature fail events while the store does not answer.
var closed = []string{
	"CAPTURE_AUTH__ON_STORE_FAILURE=closed", "CAPTURE_DEDUP__ON_STORE_FAILURE=closed",
	"CAPTURE_QUOTA__ON_STORE_FAILURE=closed",
}

// exact has deduplication promise that nothing is stored twice although the machine stands still for seconds: a service
// that asks Redis in vain stores nothing, and what is reserved stays so for longer than others wait for it.
var exact = []string{"CAPTURE_DEDUP__ON_STORE_FAILURE=closed", "CAPTURE_DEDUP__LEASE=10s"}

// newFleet prepares services in mode kafka, each with the further environment of its name. They have a Redis in common.
// The cleanup of t strikes the stage.
func newFleet(t *testing.T, name string, redis []string, services map[string][]string) *stage {
	s := &stage{
		scenario: scenario{name: name, shape: usual, rate: usualRate}, dir: filepath.Join(workplace, name),
		loads: map[*service]*proof.Load{}, further: map[*service][]string{},
	}
	t.Cleanup(func() { s.strike(t) })
	var err error
	s.kafka, err = shared.of(1)
	require.NoError(t, err)
	require.NoError(t, s.kafka.revive())
	environ := append(slices.Clone(everything), "CAPTURE_STORE__REDIS__ADDRS="+strings.Join(redis, ","))
	for _, of := range slices.Sorted(maps.Keys(services)) {
		service, err := newService(filepath.Join(s.dir, of), modeKafka, s.kafka, append(environ, services[of]...)...)
		require.NoError(t, err)
		service.watch(false)
		s.services = append(s.services, service)
	}
	return s
}

// TestARetryStormStoresEachEventOnce sends every batch three times at once to two services, whose clients hang up on
// some requests, while services are killed. Nothing is lost, and nothing is stored twice but events that a service had
// when it was killed: Kafka may have acknowledged them before the service could say so to the store.
func TestARetryStormStoresEachEventOnce(t *testing.T) {
	redis := redisserver.Start(t, redisserver.Options{})
	s := newFleet(t, "storm", []string{redis.Addr}, map[string][]string{"a": exact, "b": exact})
	one, other := s.services[0], s.services[1]
	// Both write to the topics of the first.
	other.environ = append(other.environ, slices.DeleteFunc(slices.Clone(one.environ),
		func(text string) bool { return !strings.HasPrefix(text, "CAPTURE_KAFKA__TOPICS__") })...)
	require.NoError(t, s.each((*service).run))
	storm := proof.StartStorm([2]string{one.url, other.url}, usual, usualRate/4)
	s.loads[one] = storm.Load
	flow := func() error {
		goal := storm.Acked() + usualRate/4
		return process.Poll(flowPatience, 10*time.Millisecond, func() (bool, error) {
			return storm.Acked() >= goal, nil
		})
	}
	require.NoError(t, flow())
	kills := shortOr(4, 60)
	for range kills {
		node := rand.IntN(len(s.services))
		from := time.Now()
		s.services[node].kill()
		storm.Killed(proof.Kill{Node: node, From: from, To: time.Now()})
		last(rand.N(time.Second))
		require.NoError(t, s.services[node].run())
		require.NoError(t, flow())
	}
	delete(s.loads, one)
	history := storm.Stop()
	var duplicates float64
	for _, service := range s.services {
		n, err := service.metric("capture_dedup_duplicates_total")
		require.NoError(t, err)
		duplicates += n
	}
	other.watched.end()
	require.NoError(t, other.terminate())
	v, err := s.finish(one, history)
	line := v.Line("storm/"+one.mode, fmt.Sprint("kills=", kills), fmt.Sprintf("recognized=%.0f", duplicates))
	fmt.Println(line)
	require.NoError(t, err)
	assert.Positive(t, v.Acked, line)
	assert.Positive(t, duplicates, "nothing was sent again, so this was no storm: %s", line)
	assert.Zero(t, v.Lost+v.Mangled+v.Unknown+v.Reordered, "%s\nsuch as %+v", line, v.Missing)
	assert.Zero(t, v.Duplicated-v.Caught, "stored twice, although no service was killed meanwhile: %s", line)
}

// redisFault is what happens to Redis, and how it ends.
type redisFault struct {
	name string
	// part says that only a part of the tokens is without Redis. The load's token is one of them, and readiness is
	// about the others, too.
	part bool
	// start starts the Redis and returns its addresses, and the fault with its end.
	start func(*testing.T) (addrs []string, begin, end func() error)
}

var redisFaults = []redisFault{
	{"killed", false, func(t *testing.T) ([]string, func() error, func() error) {
		redis := redisserver.Start(t, redisserver.Options{AppendOnly: true})
		return []string{redis.Addr}, func() error {
			redis.Kill()
			return nil
		}, redis.Restart
	}},
	{"hung", false, func(t *testing.T) ([]string, func() error, func() error) {
		redis := redisserver.Start(t, redisserver.Options{})
		return []string{redis.Addr}, redis.Stop, redis.Continue
	}},
	{"cluster", true, func(t *testing.T) ([]string, func() error, func() error) {
		redis := redisserver.StartCluster(t, 3, 1, redisserver.Options{})
		var killed *redisserver.Server
		return redis.Addrs(), func() (err error) {
				if killed, err = redis.PrimaryOf("{" + (proof.Shape{}).Project() + "}"); err == nil {
					killed.Kill()
				}
				return err
			}, func() error {
				if err := killed.Restart(); err != nil {
					return err
				}
				return redis.Await()
			}
	}},
}

const (
	// mostOnce is how much longer a request may take when Redis has just gone. It is as long as a request waits for
	// Redis (store.timeout), and a little more.
	mostOnce = 60 * time.Millisecond
	// goneFor is the time after the fault whose latency is compared with that before.
	goneFor = time.Second
	// metricTrips counts round trips to Redis, also those that have failed. Once the breaker is open, there are none
	// but probes: two at most for each of two breakers, each half a second (store.breaker.pause).
	metricTrips = "capture_store_round_trips_total"
	mostProbes  = 8
)

// redisRound is one time of a fault of Redis: when it began, when the service knew that Redis was away, and when it was
// mended.
type redisRound struct {
	before, broken, known, mended time.Time
	// trips are the round trips to Redis between known and mended, and retry what a service that refused then said of
	// when to come again.
	trips float64
	retry string
}

// round plays a fault of Redis.
func (s *stage) round(refuses, admits *service, begin, end func() error) (r redisRound, err error) {
	r.before = time.Now()
	last(shortOr(3*time.Second, 30*time.Second))
	r.broken = time.Now()
	if err := begin(); err != nil {
		return r, err
	}
	last(time.Until(r.broken.Add(goneFor)))
	if err := admits.awaitStore(false); err != nil {
		return r, fmt.Errorf("the service does not notice that Redis is away: %w", err)
	}
	before, err := admits.metric(metricTrips)
	if err != nil {
		return r, err
	}
	r.known = time.Now()
	if err := refuses.awaitStore(false); err != nil {
		return r, fmt.Errorf("the service that refuses does not notice that Redis is away: %w", err)
	}
	// The Cluster replaces the primary after some seconds. Nobody would look for duplicates of an event without a uuid.
	response, err := http.Post(refuses.url+"/capture/", "application/json", strings.NewReader(
		`{"api_key":"`+(proof.Shape{}).Project()+`","event":"probe","distinct_id":"d","uuid":"`+uuid.NewString()+`"}`))
	if err != nil {
		return r, err
	}
	if r.retry = response.Header.Get("Retry-After"); response.StatusCode != http.StatusServiceUnavailable {
		return r, fmt.Errorf("closed answers %s", response.Status)
	}
	if err := response.Body.Close(); err != nil {
		return r, err
	}
	last(shortOr(3*time.Second, 30*time.Second))
	after, err := admits.metric(metricTrips)
	if err != nil {
		return r, err
	}
	r.trips, r.mended = after-before, time.Now()
	return r, errors.Join(end(), refuses.awaitStore(true), admits.awaitStore(true), s.flow())
}

// awaitStore returns when the service knows that its store answers, or that a part of it does not.
func (s *service) awaitStore(answers bool) error {
	return process.Poll(flowPatience, 5*time.Millisecond, func() (bool, error) {
		_, body, err := process.Get(s.admin + "/admin/store")
		if err != nil {
			return false, err
		}
		var status store.Status
		if err := json.Unmarshal(body, &status); err != nil {
			return false, fmt.Errorf("/admin/store: %w: %s", err, body)
		}
		return status.Reachable == answers, nil
	})
}

// TestNoRequestFailsWithoutRedis breaks Redis under load, several times. Services whose features are open answer every
// request 200, and soon as fast as before. Services whose features are closed answer 503 and say when to come again.
//
// The latency that is judged is the least of the rounds, without Redis and with it. Redis delays the requests of every
// round, and what else the machine does delays those of some.
func TestNoRequestFailsWithoutRedis(t *testing.T) {
	for _, fault := range redisFaults {
		t.Run(fault.name, func(t *testing.T) {
			addrs, begin, end := fault.start(t)
			s := newFleet(t, "redis-"+fault.name, addrs, map[string][]string{"closed": closed, "open": nil})
			refuses, admits := s.services[0], s.services[1]
			require.NoError(t, s.each((*service).run))
			require.NoError(t, s.load())
			// Until it is connected to Kafka, a service refuses.
			early := s.loads[admits].Refused()
			if fault.part {
				refuses.watched.end()
			}
			var rounds []redisRound
			for range shortOr(3, 5) {
				round, err := s.round(refuses, admits, begin, end)
				require.NoError(t, err)
				rounds = append(rounds, round)
			}
			history := s.loads[admits].Stop()
			answered := s.loads[refuses].Stop()
			clear(s.loads)
			metrics, err := process.Metrics(admits.admin)
			require.NoError(t, err)
			unchecked := metrics["capture_dedup_open_admissions_total"]
			var normal, first, later []time.Duration
			for _, r := range rounds {
				normal = append(normal, proof.P99(history.Between(r.before, r.broken)))
				first = append(first, proof.P99(history.Between(r.broken, r.broken.Add(goneFor))))
				without := history.Between(r.known, r.mended)
				later = append(later, proof.P99(without))
				assert.NotEmpty(t, r.retry, "an answer of 503 does not say when to come again")
				if !fault.part {
					// No request waits for Redis any more, whatever the latency of a busy machine is.
					probes := mostProbes * (1 + r.mended.Sub(r.known).Seconds())
					assert.LessOrEqual(t, r.trips, probes, "requests have waited for Redis")
					assert.Greater(t, float64(without.Acked()/without.Size()), probes, "too few requests to tell")
				}
			}
			refused := history.Refused - int(early)
			line := fmt.Sprintf("redis-%s/open acked=%d refused=%d unanswered=%d p99_before=%s p99_first=%s "+
				"p99_later=%s unchecked=%.0f trips_later=%.0f rounds=%d", fault.name, history.Acked(),
				refused, history.Unanswered, proof.Short(slices.Min(normal)), proof.Short(slices.Min(first)),
				proof.Short(slices.Min(later)), unchecked, rounds[0].trips, len(rounds))
			fmt.Println(line)
			fmt.Printf("redis-%s/closed acked=%d refused=%d unanswered=%d retry_after=%s\n", fault.name,
				answered.Acked(), answered.Refused, answered.Unanswered, rounds[0].retry)
			assert.Zero(t, refused+history.Unanswered, line)
			assert.Positive(t, unchecked, "no event has met the fault")
			assert.LessOrEqual(t, slices.Min(first), slices.Min(normal)+mostOnce+p99Floor(), line)
			assert.Positive(t, answered.Refused)
			assert.Zero(t, answered.Unanswered)
			for _, of := range []struct {
				service *service
				history *proof.History
			}{{admits, history}, {refuses, answered}} {
				v, err := s.finish(of.service, of.history)
				s.pass(t, of.service, v)
				require.NoError(t, err)
			}
		})
	}
}

// labelled returns the sum of a metric over the lines that have a label of this value.
func labelled(s *service, name, value string) (sum float64, err error) {
	_, body, err := process.Get(s.admin + "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		if fields := strings.Fields(line); strings.HasPrefix(line, name+"{") && len(fields) == 2 &&
			strings.Contains(fields[0], strconv.Quote(value)) {
			n, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}
