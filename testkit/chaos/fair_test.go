//go:build chaos && linux

package chaos

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/testkit/measure"
	"github.com/opencapture/capture/testkit/proof"
	"github.com/opencapture/capture/testkit/redisserver"
)

const (
	// fairRate is what each project may send, in events a second. The hog sends hogTimes as much.
	fairRate, hogTimes = 500, 10
	// hogs is over how many projects the same events are spread, so that each is within its limit.
	hogs = hogTimes + 2
	// otherProjects send othersRate single events a second together.
	otherProjects, othersRate = 8, 800
	// mostUnfair is how much longer the requests of the others may take meanwhile: the 99th percentile.
	mostUnfair = 1.2
	// mostForeign is the part of the machine that other programs may take in a turn that counts.
	mostForeign = 0.2
)

// The turns of a round. In all of them the generator sends the same requests at the same times. They differ in who gets
// those that are not the others'.
const (
	within = iota // one in hogs is sent to the service, all for the hog; the rest to a server that does nothing
	beyond        // all are sent to the service, for the hog: ten times as much as it may send
	spread        // all are sent to the service, for as many projects as make them welcome
	turns
)

var hog = proof.Shape{Workers: 16, Keys: 2, PerKey: 5, Pad: 150}

// TestAProjectOverItsLimitSlowsNobodyDown compares the latency of other projects while one sends ten times as much as
// it may with that while it sends what it may, in turns of a second. A latency counts from the time at which the
// request was due. The test fails if the ratio of the two is over the limit with a probability of 99.5 %, passes if it
// is not with the same probability, and goes on otherwise. Only turns count in which other programs leave the machine
// alone: if there are too few, or the measure does not tell, nothing is known, and the test says so and is skipped.
//
// What the requests cost the service beside that is printed: CPU time for an event over the limit, and for the same
// events where they are welcome.
func TestAProjectOverItsLimitSlowsNobodyDown(t *testing.T) {
	redis := redisserver.Start(t, redisserver.Options{})
	idle := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer idle.Close()
	for _, over := range []string{"reject", "drop", "overflow"} {
		t.Run(over, func(t *testing.T) {
			s := newFleet(t, "fair-"+over, []string{redis.Addr}, map[string][]string{"a": {
				fmt.Sprintf("CAPTURE_QUOTA__RATES=events=%d/s burst=%d", fairRate, fairRate),
				"CAPTURE_QUOTA__OVER=" + over,
			}})
			service := s.services[0]
			require.NoError(t, service.run())
			f := startFair(t, service, idle.URL)
			last(shortOr(3*time.Second, 30*time.Second)) // until all parts are warm
			for range shortOr(12, 60) {
				f.round()
			}
			ratio, counted := f.ratio()
			for range shortOr(12, 120) {
				if ratio.Least > mostUnfair || counted >= fewestPairs && ratio.Greatest <= mostUnfair {
					break
				}
				f.round()
				ratio, counted = f.ratio()
			}
			f.stop()
			limited, err := labelled(service, "capture_quota_events_total", "over_rate")
			require.NoError(t, err)
			line := fmt.Sprintf("fair/%s p99_within=%s p99_beyond=%s ratio=%.2f from=%.2f to=%.2f limited=%.0f "+
				"rounds=%d counted=%d cpu_beyond=%s cpu_welcome=%s", over, proof.Short(ratio.Before),
				proof.Short(ratio.After), ratio.Value, ratio.Least, ratio.Greatest, limited, len(f.rounds), counted,
				f.cpuOf(beyond), f.cpuOf(spread))
			fmt.Println(line)
			assert.Positive(t, limited, "nobody was over a limit: %s", line)
			service.watched.end()
			require.NoError(t, service.terminate())
			require.LessOrEqual(t, ratio.Least, mostUnfair, line)
			if counted < fewestPairs || ratio.Greatest > mostUnfair {
				t.Skip("other programs keep the machine too busy to tell: ", line)
			}
		})
	}
}

// fewestPairs is how many pairs of turns have to count.
const fewestPairs = 10

// fair is a measurement.
type fair struct {
	t           *testing.T
	service     *service
	turn        atomic.Int32
	hog, others *proof.Pace
	rounds      [][turns]turn
}

// turn is one turn of a round.
type turn struct {
	from, to time.Time
	cpu      time.Duration // of the service
	foreign  float64       // the part of the machine that other programs took
}

// startFair starts the requests, in the turn within. idle is the address of the server that does nothing.
func startFair(t *testing.T, service *service, idle string) *fair {
	f := &fair{t: t, service: service}
	f.hog = proof.StartPace(hog, fairRate*hogTimes, func(worker, number int) proof.Target {
		n := worker + hog.Workers*number
		to := proof.Target{URL: service.url, Token: "phc_hog"}
		switch f.turn.Load() {
		case within:
			if n%hogs > 0 {
				to.URL = idle
			}
		case spread:
			to.Token += strconv.Itoa(n % hogs)
		}
		return to
	})
	single := proof.Shape{Workers: 4 * otherProjects, Keys: 1, PerKey: 1, Pad: 150}
	f.others = proof.StartPace(single, othersRate, func(worker, _ int) proof.Target {
		return proof.Target{URL: service.url, Token: "phc_other" + strconv.Itoa(worker%otherProjects)}
	})
	return f
}

// round takes the turns of a round.
func (f *fair) round() {
	var round [turns]turn
	for i := range round {
		f.turn.Store(int32(i))
		last(250 * time.Millisecond) // until the burst is spent
		machine := newUse(f.t)
		cpu, err := measure.CPUTime(f.service.Pid())
		require.NoError(f.t, err)
		from := time.Now()
		last(time.Second)
		to := time.Now()
		used, err := measure.CPUTime(f.service.Pid())
		require.NoError(f.t, err)
		round[i] = turn{from: from, to: to, cpu: used - cpu, foreign: newUse(f.t).foreignSince(machine)}
	}
	f.rounds = append(f.rounds, round)
}

// ratio compares the turns beyond with the turns within, of those rounds that count. It returns their number.
func (f *fair) ratio() (ratio proof.Ratio, counted int) {
	answers := f.others.Answers()
	var pairs []proof.Pair
	for _, round := range f.rounds {
		if max(round[within].foreign, round[beyond].foreign) > mostForeign {
			continue
		}
		pairs = append(pairs, proof.Pair{
			Before: f.latencies(answers, round[within]), After: f.latencies(answers, round[beyond]),
		})
	}
	return proof.CompareP99(pairs), len(pairs)
}

// latencies returns those of the requests that were due in the turn, all of which have to be acknowledged.
func (f *fair) latencies(answers []proof.Timed, in turn) (list []time.Duration) {
	for _, a := range answers {
		if !a.Due.Before(in.from) && a.Due.Before(in.to) {
			assert.Equal(f.t, http.StatusOK, a.Status, "another project was refused")
			list = append(list, a.At.Sub(a.Due))
		}
	}
	return list
}

func (f *fair) stop() {
	f.hog.Stop()
	f.others.Stop()
}

// cpuOf returns the CPU time of the service for an event in the turns of a kind, beyond the time in the turns within.
func (f *fair) cpuOf(kind int) time.Duration {
	answers := f.hog.Answers()
	var cpu time.Duration
	events := 0
	for _, round := range f.rounds {
		cpu += round[kind].cpu - round[within].cpu
		for _, a := range answers {
			if a.URL != f.service.url {
				continue
			}
			for i, sign := range map[int]int{kind: 1, within: -1} {
				if in := round[i]; !a.Due.Before(in.from) && a.Due.Before(in.to) {
					events += sign * hog.Size()
				}
			}
		}
	}
	return (cpu / time.Duration(max(1, events))).Round(100 * time.Nanosecond)
}

// use is how much of the machine has been used since its start, in ticks of the kernel.
type use struct{ busy, all, own int64 }

// newUse returns the use by now. Own is what this process and its descendants have used; all of them are still there.
func newUse(t *testing.T) (u use) {
	stat, err := os.ReadFile("/proc/stat")
	require.NoError(t, err)
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	for i, field := range strings.Fields(string(line))[1:9] { // user nice system idle iowait irq softirq steal
		ticks, err := strconv.ParseInt(field, 10, 64)
		require.NoError(t, err)
		u.all += ticks
		if i != 3 && i != 4 {
			u.busy += ticks
		}
	}
	parents, used := map[int]int{}, map[int]int64{}
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	for _, path := range paths {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		// The second field, the name, may hold any characters, but it ends with the last parenthesis.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		require.NoError(t, err)
		parents[pid], err = strconv.Atoi(fields[1])
		require.NoError(t, err)
		for _, field := range fields[11:13] { // utime, stime
			ticks, err := strconv.ParseInt(field, 10, 64)
			require.NoError(t, err)
			used[pid] += ticks
		}
	}
	for pid, ticks := range used {
		for of := pid; of > 1; of = parents[of] {
			if of == os.Getpid() {
				u.own += ticks
				break
			}
		}
	}
	return u
}

// foreignSince returns the part of the machine that other programs have used since.
func (u use) foreignSince(before use) float64 {
	return float64(u.busy-before.busy-(u.own-before.own)) / float64(max(1, u.all-before.all))
}
