//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencapture/capture/testkit/measure"
	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/redisserver"
)

// The goals.
const (
	mostOperations = 0.05
	mostRoundTrips = 1.0
	mostCPU        = 1.15
)

type options struct {
	brokers     string
	binary      string
	events      int
	connections int
	rounds      int
	projects    int
	parts       string
	strict      bool
	core        string
	loads       string
}

func main() {
	var o options
	flag.StringVar(&o.brokers, "brokers", os.Getenv("CAPTURE_TEST_KAFKA_BROKERS"),
		"addresses of Kafka's brokers, separated by commas")
	flag.IntVar(&o.events, "events", 400_000, "events of a run")
	flag.IntVar(&o.connections, "connections", 192, "connections to the service")
	flag.IntVar(&o.rounds, "rounds", 5, "runs with everything on and with everything off")
	flag.IntVar(&o.projects, "projects", 1000, "projects that send")
	flag.StringVar(&o.parts, "parts", "operations,dedup,cpu", "what to measure")
	flag.StringVar(&o.core, "core", "", "core that the service has to itself, if everything else runs on others")
	flag.StringVar(&o.loads, "loads", "mixed,batches,singles", "loads to measure CPU time with")
	flag.BoolVar(&o.strict, "strict", false, "exit with 1 also if the goal for CPU time is missed")
	flag.Parse()
	o.binary = flag.Arg(0)
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, "benchstate:", err)
		os.Exit(1)
	}
}

func (o options) run() error {
	switch {
	case flag.NArg() != 1:
		return errors.New("name the binary of the service")
	case o.brokers == "":
		return errors.New("name Kafka's brokers with -brokers, or run this by testkit/services/services.sh run")
	}
	dir, err := os.MkdirTemp("", "capture-benchstate")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	redis, err := redisserver.Open(filepath.Join(dir, "redis"), redisserver.Options{})
	if err != nil {
		return err
	}
	defer redis.Kill()
	if err := o.setUp(redis); err != nil {
		return err
	}
	b := bench{options: o, dir: dir, redis: redis}
	var faults []error
	for _, part := range []struct {
		name string
		run  func() error
	}{{"operations", b.operations}, {"dedup", b.dedup}, {"cpu", b.cpu}} {
		if slices.Contains(strings.Split(o.parts, ","), part.name) {
			faults = append(faults, part.run())
		}
	}
	return errors.Join(faults...)
}

// setUp writes the projects into Redis, each with limits that nobody reaches.
func (o options) setUp(redis *redisserver.Server) error {
	for i := range o.projects {
		if _, err := redis.Do("HSET", "capture:1:project:{"+token(i)+"}", "id", fmt.Sprint(i),
			"quotas", "events=100000000/month, events=10000000/day", "rates", "events=10000/s"); err != nil {
			return err
		}
	}
	return nil
}

func token(i int) string { return fmt.Sprintf("phc_bench%04d", i) }

type bench struct {
	options
	dir   string
	redis *redisserver.Server
	runs  int
}

// The features, as the environment sets them.
var (
	limits    = []string{"CAPTURE_AUTH__MODE=strict"}
	noLimits  = []string{"CAPTURE_AUTH__MODE=open"}
	dedups    = []string{"CAPTURE_DEDUP__WINDOW=1h"}
	dedupsNot = []string{"CAPTURE_DEDUP__WINDOW=0"}
)

// start starts a service with these features.
func (b *bench) start(addr string, features ...[]string) (*process.Service, error) {
	b.runs++
	dir := filepath.Join(b.dir, fmt.Sprint("run-", b.runs))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	environ := append([]string{
		"CAPTURE_KAFKA__BROKERS=" + b.brokers, "CAPTURE_KAFKA__TOPICS__EVENTS=capture-benchstate",
		"CAPTURE_KAFKA__TOPICS__PARTITIONS=6",
		// A busy machine is no outage.
		"CAPTURE_DELIVERY__SPOOL_AFTER=59s", "CAPTURE_DELIVERY__TIMEOUT=1m",
		"CAPTURE_STORE__TIMEOUT=1s", "CAPTURE_AUTH__TIMEOUT=1s",
	}, slices.Concat(features...)...)
	if addr != "" {
		environ = append(environ, "CAPTURE_STORE__REDIS__ADDRS="+addr)
	}
	command := []string{b.binary, "serve"}
	if b.core != "" {
		command = append([]string{"taskset", "-c", b.core}, command...)
	}
	return process.Serve(dir, filepath.Join(dir, "capture.log"), environ, command...)
}

// run puts a service under a load of so many events, after a warm-up, and calls before between the two. rate is how
// many requests are sent in a second; 0 is as many as go.
func (b *bench) run(service *process.Service, kind workload, rate float64, before func() error) (*load, error) {
	// The first requests wait until the topics exist.
	warmUp := max(b.events/5, 4*b.projects*kind.size()) / kind.size()
	for deadline := time.Now().Add(5 * time.Minute); ; {
		warm, err := newLoad(kind, warmUp, b.projects)
		if err != nil {
			return nil, err
		}
		if err := measure.Load(service.URL, b.connections, 0, warm.requests); err == nil {
			break
		} else if time.Now().After(deadline) {
			return nil, err
		}
	}
	load, err := newLoad(kind, b.events/kind.size(), b.projects)
	if err != nil {
		return nil, err
	}
	if err := before(); err != nil {
		return nil, err
	}
	return load, measure.Load(service.URL, b.connections, rate, load.requests)
}

// count runs a load and returns what has passed between the service and Redis meanwhile.
func (b *bench) count(features ...[]string) (
	traffic redisserver.Traffic, load *load, took time.Duration, err error,
) {
	proxy, err := redisserver.NewProxy(b.redis)
	if err != nil {
		return traffic, nil, 0, err
	}
	defer proxy.Close()
	service, err := b.start(proxy.Addr, features...)
	if err != nil {
		return traffic, nil, 0, err
	}
	defer service.Kill()
	var earlier redisserver.Traffic
	var began time.Time
	load, err = b.run(service, mixed, 0, func() error {
		earlier, began = proxy.Traffic(), time.Now()
		return nil
	})
	return proxy.Traffic().Since(earlier), load, time.Since(began), err
}

func (b *bench) operations() error {
	traffic, load, took, err := b.count(limits, dedupsNot)
	if err != nil {
		return err
	}
	per := float64(traffic.Sum()) / float64(load.events)
	fmt.Printf("operations on Redis for projects, quotas and rates: %.4f an event (goal: at most %.2f): "+
		"%d events in %d requests of %d projects at %.0f events/s, %v\n",
		per, mostOperations, load.events, len(load.requests), b.projects,
		float64(load.events)/took.Seconds(), traffic.Commands)
	if per > mostOperations {
		return fmt.Errorf("%.4f operations an event", per)
	}
	return nil
}

func (b *bench) dedup() error {
	traffic, load, took, err := b.count(noLimits, dedups)
	if err != nil {
		return err
	}
	per := float64(traffic.RoundTrips) / float64(len(load.requests))
	fmt.Printf("round trips to Redis for deduplication: %.3f a request (goal: at most %.0f): "+
		"%d events in %d requests at %.0f events/s, %v\n",
		per, mostRoundTrips, load.events, len(load.requests), float64(load.events)/took.Seconds(),
		traffic.Commands)
	if per > mostRoundTrips {
		return fmt.Errorf("%.3f round trips a request", per)
	}
	return nil
}

// variant is what is on in a run.
type variant struct {
	name string
	// shared says that the state is in Redis.
	shared   bool
	features [][]string
}

// The first of them is compared with the others. Of a mixed load all are measured, of the others the first two.
var variants = []variant{
	{"off", false, [][]string{noLimits, dedupsNot}},
	{"on", true, [][]string{limits, dedups}},
	{"projects, quotas and rates alone", true, [][]string{limits, dedupsNot}},
	{"deduplication by Redis alone", true, [][]string{noLimits, dedups}},
	{"deduplication by the node alone", false, [][]string{noLimits, dedups}},
}

// pace is the part of what a service can take that it is given while its CPU time is measured. A service that always
// has something to do at once shows what its work costs, and one that hardly has any what it costs to wait.
const pace = 0.75

// cpu compares everything on, and each part alone, with everything off, at the same rate of requests.
func (b *bench) cpu() error {
	var faults []error
	for _, kind := range []workload{mixed, batches, singles} {
		if !slices.Contains(strings.Split(b.loads, ","), string(kind)) {
			continue
		}
		some := variants
		if kind != mixed {
			some = variants[:2]
		}
		// The first run on a Kafka that has just been started is like no other, and is not compared.
		most, err := b.cost(kind, &variants[1], 0)
		if err != nil {
			return err
		}
		rate := pace * most.rate
		fmt.Printf("%s: %.0f requests a second, everything on; the runs have %.0f\n", kind, most.rate, rate)
		costs := make([][]float64, len(some))
		for round := range b.rounds {
			for i := range some {
				if round%2 == 1 {
					i = len(some) - 1 - i
				}
				cost, err := b.cost(kind, &some[i], rate)
				if err != nil {
					return err
				}
				costs[i] = append(costs[i], cost.event)
			}
		}
		off := costs[0]
		for i, of := range costs[1:] {
			// The two runs of a round are near each other in time, so a machine that gets slower slows both.
			ratios := make([]float64, len(of))
			for round := range of {
				ratios[round] = of[round] / off[round]
			}
			ratio := median(ratios)
			fmt.Printf("CPU an event, %s, %s: %.2f us, off %.2f us, ratio %.3f (of the rounds: %.2f)\n", kind,
				some[i+1].name, median(of), median(off), ratio, slices.Sorted(slices.Values(ratios)))
			if kind != mixed || i > 0 {
				continue
			}
			fmt.Printf("  goal of everything on, mixed: at most %.2f\n", mostCPU)
			if b.strict && ratio > mostCPU {
				faults = append(faults, fmt.Errorf("everything on costs %.0f %% more CPU", 100*(ratio-1)))
			}
		}
	}
	return errors.Join(faults...)
}

// median returns the mean of the two in the middle if there is no one there.
func median(all []float64) float64 {
	ordered := slices.Sorted(slices.Values(all))
	return (ordered[(len(ordered)-1)/2] + ordered[len(ordered)/2]) / 2
}

// cost is what a run has shown: microseconds of CPU time for an event, and requests in a second.
type cost struct{ event, rate float64 }

// cost measures a service with this rate of requests; 0 is as many as go.
func (b *bench) cost(kind workload, v *variant, rate float64) (c cost, err error) {
	addr := ""
	if v.shared {
		addr = b.redis.Addr
	}
	service, err := b.start(addr, v.features...)
	if err != nil {
		return c, err
	}
	defer service.Kill()
	var earlier time.Duration
	var began time.Time
	load, err := b.run(service, kind, rate, func() (err error) {
		earlier, err = measure.CPUTime(service.Pid())
		began = time.Now()
		return err
	})
	if err != nil {
		return c, err
	}
	took := time.Since(began)
	now, err := measure.CPUTime(service.Pid())
	return cost{
		event: float64((now - earlier).Microseconds()) / float64(load.events),
		rate:  float64(len(load.requests)) / took.Seconds(),
	}, err
}
