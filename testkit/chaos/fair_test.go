//go:build chaos && linux

package chaos

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/testkit/proof"
	"github.com/opencapture/capture/testkit/redisserver"
)

const (
	// fairRate is what each project may send, in events a second. The hog sends hogTimes as much.
	fairRate, hogTimes = 500, 10
	// hogs is over how many parts the hog's requests are divided, so that one part is within its limit.
	hogs = hogTimes + 2
	// otherProjects send othersRate single events a second together.
	otherProjects, othersRate = 8, 800
	// mostUnfair is how much longer the requests of the others may take meanwhile: the 99th percentile.
	mostUnfair = 1.2
	// proven is from where on the short run, which has few rounds and a machine that does other work, fails.
	proven = 2
)

// The turns of a round. In both the generator sends the same requests at the same times.
const (
	within = iota // one in hogs is sent to the service, all for the hog; the rest to a server that does nothing
	beyond        // all are sent to the service, for the hog: ten times as much as it may send
	turns
)

var hog = proof.Shape{Workers: 16, Keys: 2, PerKey: 5, Pad: 150}

// TestAProjectOverItsLimitSlowsNobodyDown compares the latency of other projects while one sends ten times as much as
// it may with that while it sends what it may, in turns of a second. A latency counts from the time at which the
// request was due. The test goes on until a bound says that the ratio of the two is over the limit, or is not, or until
// the rounds are over. The long run fails if the ratio is over the limit by its bound, the short one if it is far over
// it. What else the machine does in some of the turns makes the bounds wider, and does not fail the test.
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
				// Elsewhere in this suite, overflow shares its topic with other streams.
				fmt.Sprintf("CAPTURE_KAFKA__TOPICS__OVERFLOW=fair.%d.overflow", time.Now().UnixNano()),
			}})
			service := s.services[0]
			require.NoError(t, service.run())
			f := startFair(t, service, idle.URL)
			last(shortOr(3*time.Second, 30*time.Second)) // until all parts are warm
			for range shortOr(12, 60) {
				f.round()
			}
			ratio := f.ratio()
			for range shortOr(8, 120) {
				if ratio.Least > mostUnfair || ratio.Greatest <= mostUnfair {
					break
				}
				f.round()
				ratio = f.ratio()
			}
			f.stop()
			limited, err := labelled(service, "capture_quota_events_total", "over_rate")
			require.NoError(t, err)
			line := fmt.Sprintf("fair/%s p99_within=%s p99_beyond=%s ratio=%.2f from=%.2f to=%.2f limited=%.0f "+
				"rounds=%d", over, proof.Short(ratio.Before), proof.Short(ratio.After), ratio.Value, ratio.Least,
				ratio.Greatest, limited, len(f.rounds))
			fmt.Println(line)
			assert.Positive(t, limited, "nobody was over a limit: %s", line)
			service.watched.end()
			require.NoError(t, service.terminate())
			require.LessOrEqual(t, ratio.Least, shortOr(proven, mostUnfair), line)
		})
	}
}

// fair is a measurement.
type fair struct {
	t           *testing.T
	service     *service
	turn        atomic.Int32
	hog, others *proof.Pace
	rounds      [][turns]turn
}

type turn struct{ from, to time.Time }

// startFair starts the requests, in the turn within. idle is the address of the server that does nothing.
func startFair(t *testing.T, service *service, idle string) *fair {
	f := &fair{t: t, service: service}
	f.hog = proof.StartPace(hog, fairRate*hogTimes, func(worker, number int) proof.Target {
		if f.turn.Load() == within && (worker+hog.Workers*number)%hogs > 0 {
			return proof.Target{URL: idle, Token: "phc_hog"}
		}
		return proof.Target{URL: service.url, Token: "phc_hog"}
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
		from := time.Now()
		last(time.Second)
		round[i] = turn{from, time.Now()}
	}
	last(250 * time.Millisecond) // until what was due is answered
	f.rounds = append(f.rounds, round)
}

// ratio compares the turns beyond with the turns within.
func (f *fair) ratio() proof.Ratio {
	answers := f.others.Answers()
	pairs := make([]proof.Pair, len(f.rounds))
	for i, round := range f.rounds {
		pairs[i] = proof.Pair{Before: f.latencies(answers, round[within]), After: f.latencies(answers, round[beyond])}
	}
	return proof.CompareP99(pairs)
}

// latencies returns those of the requests that were due in the turn. None of them may be refused.
func (f *fair) latencies(answers []proof.Timed, in turn) (list []time.Duration) {
	for _, a := range answers {
		if !a.Due.Before(in.from) && a.Due.Before(in.to) {
			assert.Equal(f.t, http.StatusOK, a.Status, "another project was refused")
			list = append(list, a.At.Sub(a.Due))
		}
	}
	require.Greater(f.t, len(list), othersRate/4, "most requests of a turn are not answered")
	return list
}

func (f *fair) stop() {
	f.hog.Stop()
	f.others.Stop()
}
