//go:build state && linux

package state

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/redisserver"
)

// seedEnv repeats the random numbers of an earlier run. binaryEnv names a binary other than that of this checkout.
const (
	seedEnv   = "CAPTURE_STATE_SEED"
	binaryEnv = "CAPTURE_STATE_BINARY"
)

// workplace holds the binaries.
var workplace string

var (
	stock = process.Stock(binaryEnv, func() string { return workplace })
	wrong = process.Jumping(func() string { return workplace })
)

func TestMain(m *testing.M) {
	var err error
	if workplace, err = os.MkdirTemp("", "capture-state-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(workplace)
	os.Exit(code)
}

// stage is what a test plays on.
type stage struct {
	name     string
	kafka    *broker
	nodes    fleet
	traffic  *traffic
	projects []*project
	random   *rand.Rand
}

// faultTime is how long faults are played.
const faultTime = 25 * time.Second

// newProjects are the projects of a test, each with other limits.
func newProjects(t *testing.T) []*project {
	t.Helper()
	var projects []*project
	for _, p := range []struct {
		name, quotas, rates, userRates, whole, zone string
	}{
		{name: "month", quotas: "events=12000/month,exceptions=3000/month"},
		{name: "minute", quotas: "events=1500/minute,events=6000/day"},
		{name: "whole", quotas: "events=5000/day", whole: "true", zone: "Asia/Kathmandu"},
		{name: "small", quotas: "events=150/hour,exceptions=40/month"},
		{name: "rate", rates: "events=200/s burst=600,exceptions=50/s"},
		{name: "both", quotas: "events=4000/month", rates: "events=150/s burst=300"},
		{name: "users", userRates: "events=20/s burst=60,exceptions=5/s burst=7"},
		{name: "free"},
	} {
		project := &project{
			name: p.name, token: fmt.Sprintf("phc_%s_%d", p.name, time.Now().UnixNano()),
			fields: map[string]string{"id": p.name},
		}
		if p.rates != "" || p.userRates != "" {
			project.fields["over"] = "drop"
		}
		for field, value := range map[string]string{
			"quotas": p.quotas, "rates": p.rates, "user_rates": p.userRates, "whole": p.whole, "zone": p.zone,
		} {
			if value != "" {
				project.fields[field] = value
			}
		}
		for text := range strings.SplitSeq(p.quotas, ",") {
			if text != "" {
				quota, err := events.ParseQuota(text)
				require.NoError(t, err)
				project.quotas = append(project.quotas, quota)
			}
		}
		project.rates, project.userRates = parseRates(t, p.rates), parseRates(t, p.userRates)
		projects = append(projects, project)
	}
	return projects
}

func parseRates(t *testing.T, texts string) (rates []events.Rate) {
	t.Helper()
	for text := range strings.SplitSeq(texts, ",") {
		if text != "" {
			rate, err := events.ParseRate(text)
			require.NoError(t, err)
			rates = append(rates, rate)
		}
	}
	return rates
}

// newStage prepares nodes that have the same environment, and starts them.
func newStage(t *testing.T, name string, n int, environ ...string) *stage {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedEnv); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	fmt.Printf("%s: %s=%d\n", name, seedEnv, seed)
	s := &stage{name: name, projects: newProjects(t), random: rand.New(rand.NewPCG(seed, 0))}
	var err error
	s.kafka, err = startBroker()
	require.NoError(t, err)
	t.Cleanup(s.kafka.Close)
	right, err := stock()
	require.NoError(t, err)
	skewed, err := wrong()
	require.NoError(t, err)
	environ = append(s.kafka.environ(), environ...)
	environ = append(environ,
		// Without the store nothing passes uncounted.
		"CAPTURE_AUTH__MODE=strict", "CAPTURE_AUTH__ON_STORE_FAILURE=closed",
		"CAPTURE_QUOTA__ON_STORE_FAILURE=closed", "CAPTURE_DEDUP__ON_STORE_FAILURE=closed",
		"CAPTURE_DELIVERY__ACK=kafka", "CAPTURE_DELIVERY__TIMEOUT=3s", "CAPTURE_KAFKA__ACK_TIMEOUT=2s",
		"CAPTURE_WARNINGS__ENABLED=false")
	environ = append(environ, stopTimeouts...)
	s.nodes, err = newFleet(t.TempDir(), n, right, skewed, environ)
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, n := range s.nodes {
			n.kill()
			if t.Failed() {
				t.Logf("%s, at its end:\n%s", n.log(), process.Tail(n.log()))
			}
		}
	})
	s.traffic = newTraffic(s.nodes)
	return s
}

// fault is something that goes wrong for a while. It returns when it is over.
type fault func(*stage) error

// between is a random time.
func (s *stage) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.random.Int64N(int64(most-least)))
}

// last waits as long as a fault lasts.
func last(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// nodeKilled: a node crashes and comes back.
func nodeKilled(s *stage) error {
	n := s.nodes[s.random.IntN(len(s.nodes))]
	n.kill()
	last(s.between(0, 2*time.Second))
	return n.start()
}

// nodeStopped: a node is stopped in the intended way and started again.
func nodeStopped(s *stage) error {
	n := s.nodes[s.random.IntN(len(s.nodes))]
	if err := n.stop(); err != nil {
		return err
	}
	return n.start()
}

// kafkaAway: Kafka takes nothing for longer than the nodes try, so that events fail.
func kafkaAway(s *stage) error {
	s.kafka.away.Store(true)
	last(s.between(4*time.Second, 6*time.Second))
	s.kafka.away.Store(false)
	return nil
}

// play plays random faults under load, brings everything back, spends what is left, and judges.
func (s *stage) play(t *testing.T, faults ...fault) {
	require.NoError(t, s.nodes.each((*node).start))
	load := s.traffic.run(s.random.Uint64(), s.projects)
	err := func() error {
		last(time.Second)
		// Each fault comes once, in a random order, and then any of them.
		order := s.random.Perm(len(faults))
		for began := time.Now(); time.Since(began) < faultTime || len(order) > 0; {
			next := s.random.IntN(len(faults))
			if len(order) > 0 {
				next, order = order[0], order[1:]
			}
			if err := faults[next](s); err != nil {
				return err
			}
			last(s.between(100*time.Millisecond, time.Second))
		}
		return nil
	}()
	load.end()
	require.NoError(t, err)
	s.judge(t)
}

const (
	// strandedPart is how much of a quota may be out of reach at most.
	strandedPart = 0.01
	// resting is how long a node keeps what was given back to it, until others may have it. It is longer than that of
	// modules/quota, because the machine may be busy, and because Redis may have been away meanwhile.
	resting = 15 * time.Second
)

// judge spends what is left of the quotas that last longer than the test: at first while one node of several is dead,
// then with all nodes. Then it compares.
func (s *stage) judge(t *testing.T) {
	var stranded map[string]int64
	dead, killed := s.nodes[s.random.IntN(len(s.nodes))], time.Now()
	if len(s.nodes) > 1 {
		dead.kill()
		stranded = s.spend(t)
		require.NoError(t, dead.start())
	}
	left := s.spend(t)
	for _, p := range s.projects {
		for _, r := range p.userRates {
			s.traffic.flood(s.nodes, p, r.Resource)
		}
	}
	copies, err := s.kafka.copies()
	require.NoError(t, err)
	require.Empty(t, s.traffic.faults)
	j := judge{events: s.traffic.events, copies: copies}
	for _, p := range s.projects {
		for _, q := range p.quotas {
			v := j.quota(p.token, q, zoneOf(t, p))
			further := ""
			if usedUp(p, q) {
				further = fmt.Sprintf(" left=%d", left[p.name+q.String()])
				// An event that was on its way may have been counted.
				assert.LessOrEqual(t, left[p.name+q.String()], v.inFlight, "%s %s: what is left is lost", p.name, q)
				if stranded != nil {
					further += fmt.Sprintf(" stranded=%d", stranded[p.name+q.String()])
					most := int64(strandedPart*float64(q.Limit)) + v.inFlight +
						j.failedAt(dead.dir, killed.Add(-resting), p.token, q.Resource)
					assert.LessOrEqual(t, stranded[p.name+q.String()], most, "%s %s", p.name, q)
				}
			}
			s.pass(t, p, q.String(), v, further)
		}
		for _, r := range p.rates {
			v := j.rate(p.token, r)
			s.pass(t, p, r.String(), v, "")
			assert.Positive(t, v.passed)
		}
		for _, r := range p.userRates {
			s.pass(t, p, "user:"+r.String(), j.userRate(p.token, r), "")
		}
		if len(p.quotas)+len(p.rates)+len(p.userRates) == 0 {
			s.pass(t, p, "none", j.tell(p.token, events.ResourceEvents), "")
		}
	}
	refunded := j.count(failed)
	fmt.Printf("%s: %d events, of which %d failed and %d had no answer\n", s.name, len(s.traffic.events), refunded,
		j.count(unknown))
	assert.Positive(t, refunded, "no event has failed, so nothing was given back")
}

func (s *stage) pass(t *testing.T, p *project, limit string, v verdict, further string) {
	t.Helper()
	line := v.line(s.name, p.name, limit, further)
	fmt.Println(line)
	assert.Zero(t, max(v.over, 0), "too many have passed: %s", line)
	assert.Zero(t, v.lost, line)
	assert.Positive(t, v.passed, line)
}

// usedUp reports whether a quota is used up at the end of a test: it lasts longer than the test, and nothing else stops
// the project before.
func usedUp(p *project, q events.Quota) bool {
	ends := slices.ContainsFunc(p.quotas, func(other events.Quota) bool {
		return other.Resource == q.Resource && other.Period < events.PerHour
	})
	return p.rates == nil && !ends
}

func zoneOf(t *testing.T, p *project) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(p.fields["zone"])
	require.NoError(t, err)
	return zone
}

// spend uses up what the nodes that run can still get, and returns how much of each quota has not passed then.
func (s *stage) spend(t *testing.T) map[string]int64 {
	var running fleet
	for _, n := range s.nodes {
		if n.url() != "" {
			running = append(running, n)
		}
	}
	var all sync.WaitGroup
	for _, p := range s.projects {
		for _, q := range p.quotas {
			if usedUp(p, q) {
				all.Go(func() { s.traffic.spend(running, p, q.Resource) })
			}
		}
	}
	all.Wait()
	copies, err := s.kafka.copies()
	require.NoError(t, err)
	left := map[string]int64{}
	j := judge{events: s.traffic.events, copies: copies}
	for _, p := range s.projects {
		for _, q := range p.quotas {
			left[p.name+q.String()] = q.Limit - j.tell(p.token, q.Resource).passed
		}
	}
	return left
}

// keyOf is the key of a project's record.
func keyOf(p *project) string { return "capture:1:project:{" + p.token + "}" }

// register writes the projects into Redis, as people may do it by hand. where says which server has a key.
func register(t *testing.T, projects []*project, where func(key string) (*redisserver.Server, error)) {
	t.Helper()
	for _, p := range projects {
		server, err := where(keyOf(p))
		require.NoError(t, err)
		command := []string{"HSET", keyOf(p)}
		for field, value := range p.fields {
			command = append(command, field, value)
		}
		_, err = server.Do(command...)
		require.NoError(t, err)
	}
}

func TestLimitsHoldWithFourNodesOnOneRedis(t *testing.T) {
	redis := redisserver.Start(t, redisserver.Options{AppendOnly: true})
	s := newStage(t, "four-nodes", 4, "CAPTURE_STORE__REDIS__ADDRS="+redis.Addr)
	register(t, s.projects, func(string) (*redisserver.Server, error) { return redis, nil })
	s.play(t, nodeKilled, nodeStopped, kafkaAway,
		func(s *stage) error { // Redis crashes. It has all that it has answered for.
			redis.Kill()
			last(s.between(0, time.Second))
			return redis.Restart()
		},
		func(s *stage) error { // Redis hangs.
			if err := redis.Stop(); err != nil {
				return err
			}
			last(s.between(200*time.Millisecond, 2*time.Second))
			return redis.Continue()
		})
}

func TestLimitsHoldWhenSentinelsReplaceThePrimary(t *testing.T) {
	redis := redisserver.StartSentinel(t, 2, redisserver.Options{})
	s := newStage(t, "sentinel", 4, "CAPTURE_STORE__REDIS__ADDRS="+strings.Join(redis.Addrs(), ","),
		"CAPTURE_STORE__REDIS__MASTER="+redis.Master, "CAPTURE_STORE__REDIS__REPLICAS=1")
	register(t, s.projects, func(string) (*redisserver.Server, error) { return redis.Primary() })
	s.play(t, nodeKilled, nodeStopped, kafkaAway,
		func(*stage) error { // The primary crashes, and a replica takes its place.
			killed, err := redis.Failover(t.Context())
			if err != nil {
				return err
			}
			return errors.Join(killed.Restart(), redis.Await(2))
		})
}

func TestLimitsHoldInAClusterWhosePrimariesAreReplaced(t *testing.T) {
	redis := redisserver.StartCluster(t, 3, 1, redisserver.Options{})
	s := newStage(t, "cluster", 4, "CAPTURE_STORE__REDIS__ADDRS="+strings.Join(redis.Addrs(), ","),
		"CAPTURE_STORE__REDIS__REPLICAS=1")
	register(t, s.projects, redis.PrimaryOf)
	s.play(t, nodeKilled, nodeStopped, kafkaAway,
		func(s *stage) error { // The primary of a project crashes, and a replica takes its place.
			killed, err := redis.Failover(t.Context(), keyOf(s.projects[s.random.IntN(len(s.projects))]))
			if err != nil {
				return err
			}
			return errors.Join(killed.Restart(), redis.Await())
		})
}

func TestLimitsHoldWithOneNodeThatIsItsOwnStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "projects.yaml")
	s := newStage(t, "alone", 1, "CAPTURE_AUTH__PROJECTS="+file)
	records := map[string]map[string]string{}
	for _, p := range s.projects {
		records[p.token] = p.fields
	}
	text, err := yaml.Marshal(records)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	s.play(t, nodeKilled, nodeStopped, kafkaAway)
}
