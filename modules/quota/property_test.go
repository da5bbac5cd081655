package quota

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/events"
)

// inBubble is a test in a bubble, which has no deadline.
type inBubble struct{ *testing.T }

func (inBubble) Deadline() (time.Time, bool) { return time.Time{}, false }

// fleet is four nodes on one store, and what a judge knows of them.
type fleet struct {
	t      *rapid.T
	shared *nodes
	nodes  [4]*node
	dirs   [4]string
	newDir func() string
	limits *events.Limits

	// open are the requests that have been judged and not settled.
	open []request
	// accepted is how many events have been accepted of each window of each quota.
	accepted map[window]int64
	// lost is how many events of each window are out of reach: they were on their way when their node was killed.
	lost map[window]int64
	// faulty is set when the store has failed, and unknown when a node has lost its journal after that: what the store
	// had granted it in answers that were lost is out of reach, too.
	faulty, unknown bool
}

type window struct {
	token string
	quota events.Quota
	start time.Time
}

type request struct {
	node    int
	batch   *events.Batch
	settle  events.Settle
	windows []window
	passed  int64
}

func (f *fleet) windows(token string) (all []window) {
	for _, quota := range f.limits.Quotas {
		start, _ := quota.Period.Window(time.Now().UTC())
		all = append(all, window{token, quota, start})
	}
	return all
}

// judge has a node judge a request.
func (f *fleet) judge(node int, token string, size int) *request {
	batch := batchOf(token, f.limits, size)
	r := request{node: node, batch: batch, windows: f.windows(token)}
	passed, settle := f.nodes[node].judge(batch)
	r.passed, r.settle = int64(passed), settle
	if f.limits.Whole && passed != 0 && passed != size {
		f.t.Fatalf("%d of %d events have passed", passed, size)
	}
	return &r
}

// end ends a request: the first so many of its events are accepted, and the others fail.
func (f *fleet) end(r *request, good int64) {
	done := int64(0)
	for i := range r.batch.Events {
		if event := &r.batch.Events[i]; event.Pending() && done < good {
			event.Accept()
			done++
		}
	}
	for _, w := range r.windows {
		f.accepted[w] += done
		if f.accepted[w] > w.quota.Limit {
			f.t.Fatalf("%d events of %v were accepted", f.accepted[w], w)
		}
	}
	fail(r.batch, r.settle)
}

// kill kills a node and starts it again, perhaps without its journal.
func (f *fleet) kill(i int, damaged bool) {
	held := f.nodes[i].holds()
	f.nodes[i].kill()
	rest := f.open[:0]
	for _, r := range f.open {
		if r.node != i {
			rest = append(rest, r)
			continue
		}
		// What was on its way may have been stored before the kill, or not.
		for _, w := range r.windows {
			f.lost[w] += r.passed
		}
	}
	f.open = rest
	if damaged {
		f.unknown = f.unknown || f.faulty
		for w, n := range held {
			f.lost[f.known(w)] += n
		}
		f.dirs[i] = f.newDir()
	}
	f.start(i)
}

// known returns the window as windows names it. An account of an earlier process has no limit before it is used, and
// its times are of another zone.
func (f *fleet) known(w window) window {
	w.start = w.start.UTC()
	for _, quota := range f.limits.Quotas {
		if quota.Resource == w.quota.Resource && quota.Period == w.quota.Period {
			w.quota = quota
		}
	}
	return w
}

// holds returns what the node holds of each window.
func (n *node) holds() map[window]int64 {
	held := map[window]int64{}
	n.table.all(func(s *subject) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, a := range s.accounts {
			held[window{s.token, a.quota, a.start}] += a.held()
		}
	})
	return held
}

func (f *fleet) start(i int) {
	f.nodes[i] = f.shared.start(f.dirs[i], func(c *Config) {
		c.OnStoreFailure, c.MaxAccounts = failClosed, minAccounts
	})
}

// Four nodes on one store, with random traffic, requests that stay open over the ends of windows, refunds, kills,
// stops, lost journals, a store that is away and answers that get lost: of no window more events are accepted than its
// quota allows, and in the end every event of the quota has passed that was not on its way at a kill.
func TestFourNodesNeverLetTooMuchPassAndLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(rt *rapid.T) {
			shared := newStore(t)
			f := &fleet{
				t: rt, shared: shared, newDir: t.TempDir, accepted: map[window]int64{}, lost: map[window]int64{},
				limits: rapid.SampledFrom([]*events.Limits{
					quotas("events=500/minute", "events=2000/day"), quotas("events=60/hour"),
					quotas("events=20000/month", "events=3000/hour"),
				}).Draw(rt, "limits"),
			}
			f.limits.Whole = rapid.Bool().Draw(rt, "whole")
			for i := range f.nodes {
				f.dirs[i] = t.TempDir()
				f.start(i)
			}
			tokens := rapid.SampledFrom([]string{"phc_a", "phc_b"})
			someNode, someSize := rapid.IntRange(0, len(f.nodes)-1), rapid.IntRange(1, 200)
			rt.Repeat(map[string]func(*rapid.T){
				"send": func(rt *rapid.T) {
					r := f.judge(someNode.Draw(rt, "node"), tokens.Draw(rt, "token"), someSize.Draw(rt, "size"))
					f.end(r, rapid.Int64Range(0, 300).Draw(rt, "good"))
				},
				"flood": func(rt *rapid.T) {
					node, token := someNode.Draw(rt, "node"), tokens.Draw(rt, "token")
					for range 50 {
						f.end(f.judge(node, token, 3), 3)
						time.Sleep(20 * time.Millisecond)
					}
				},
				"begin": func(rt *rapid.T) {
					r := f.judge(someNode.Draw(rt, "node"), tokens.Draw(rt, "token"), someSize.Draw(rt, "size"))
					f.open = append(f.open, *r)
				},
				"end": func(rt *rapid.T) {
					if len(f.open) > 0 {
						i := rapid.IntRange(0, len(f.open)-1).Draw(rt, "which")
						r := f.open[i]
						f.open = append(f.open[:i], f.open[i+1:]...)
						f.end(&r, rapid.Int64Range(0, 300).Draw(rt, "good"))
					}
				},
				"pass": func(rt *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(0, 40_000).Draw(rt, "ms")) * time.Millisecond)
				},
				"kill": func(rt *rapid.T) { f.kill(someNode.Draw(rt, "node"), false) },
				"damage": func(rt *rapid.T) {
					f.kill(someNode.Draw(rt, "node"), rapid.IntRange(0, 3).Draw(rt, "one") == 0)
				},
				"away": func(*rapid.T) {
					f.faulty = true
					shared.fails(away)
				},
				"lossy": func(*rapid.T) {
					f.faulty = true
					n := 0
					shared.fails(func() (bool, error) { n++; return true, errIf(n%3 == 0) })
				},
				"well": func(*rapid.T) { shared.fails(nil) },
				"stop": func(rt *rapid.T) {
					i := someNode.Draw(rt, "node")
					for _, r := range f.open {
						if r.node == i {
							return // a stop waits for the requests
						}
					}
					_ = f.nodes[i].stop() // the store may be away
					f.start(i)
				},
			})
			f.finish()
			for _, node := range f.nodes {
				require.NoError(t, node.stop())
			}
			shared.stop()
		})
	})
}

// finish has everything given back, uses up what there is, and compares.
func (f *fleet) finish() {
	f.shared.fails(nil)
	for i := range f.open {
		f.end(&f.open[i], 0)
	}
	time.Sleep(resting + 3*tick)
	synctest.Wait()
	for _, token := range []string{"phc_a", "phc_b"} {
		for n := int64(1); n > 0; {
			n = 0
			for size := 1 << 12; size > 0; size /= 2 { // as a whole, the rest may be smaller than a request
				r := f.judge(1, token, size)
				f.end(r, r.passed)
				n += r.passed
			}
		}
		full := false
		for _, w := range f.windows(token) {
			left := w.quota.Limit - f.accepted[w]
			full = full || left <= f.lost[w]
		}
		if !full && !f.unknown {
			f.t.Fatalf("%s: not all of a quota has passed: %v, lost %v", token, f.accepted, f.lost)
		}
	}
}

// Four nodes draw from one rate: in no time t more than burst + rate * t pass.
func TestFourNodesNeverPassARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(rt *rapid.T) {
			shared := newStore(t)
			text := rapid.SampledFrom([]string{
				"events=100/s burst=500", "events=10/s burst=100", "events=5/s burst=7", "events=60/m burst=1",
				"events=1000/s burst=30", "events=10/s burst=2000", "events=1000/s burst=10000",
				"events=60/m burst=400",
			}).Draw(rt, "rate")
			limits := rates(text)
			limits.Over = events.OverDrop
			limits.Whole = rapid.Bool().Draw(rt, "whole")
			rate := limits.Rates[0]
			var nodes [4]*node
			for i := range nodes {
				nodes[i] = shared.node(func(c *Config) { c.OnStoreFailure = failClosed })
			}
			level, at := float64(rate.Burst), time.Now()
			pass := func(n int) {
				now := time.Now()
				level = min(float64(rate.Burst), level+now.Sub(at).Seconds()/rate.Interval().Seconds()) - float64(n)
				at = now
				if level < -1e-6 {
					rt.Fatalf("more have passed than burst + rate * t, by %f", -level)
				}
			}
			someNode := rapid.IntRange(0, len(nodes)-1)
			rt.Repeat(map[string]func(*rapid.T){
				"send": func(rt *rapid.T) {
					node, size := nodes[someNode.Draw(rt, "node")], rapid.IntRange(1, 600).Draw(rt, "size")
					pass(node.send("phc_a", limits, size))
				},
				"flood": func(rt *rapid.T) {
					for i := range 100 {
						pass(nodes[i%4].send("phc_a", limits, 1+i%3))
						time.Sleep(7 * time.Millisecond)
					}
				},
				"fail": func(rt *rapid.T) {
					batch := batchOf("phc_a", limits, rapid.IntRange(1, 300).Draw(rt, "size"))
					_, settle := nodes[someNode.Draw(rt, "node")].judge(batch)
					time.Sleep(time.Duration(rapid.IntRange(0, 1500).Draw(rt, "ms")) * time.Millisecond)
					fail(batch, settle)
				},
				"wait": func(rt *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(0, 2000).Draw(rt, "ms")) * time.Millisecond)
				},
				"lossy": func(*rapid.T) {
					n := 0
					shared.fails(func() (bool, error) { n++; return true, errIf(n%3 == 0) })
				},
				"well": func(*rapid.T) { shared.fails(nil) },
			})
			shared.fails(nil)
			for _, node := range nodes {
				require.NoError(t, node.stop())
			}
			shared.stop()
		})
	})
}

// Whoever sends within the rate is never over it, in whatever rhythm: what the nodes draw ahead and forget is taken
// from what nobody needs.
func TestWhoeverSendsWithinTheRatePasses(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			shared := newStore(t)
			defer shared.stop()
			count := rapid.IntRange(1, 3).Draw(rt, "nodes")
			limits := rates("events=100/s burst=1000")
			limits.Over = events.OverDrop
			users := userRates("events=100/s burst=1000")
			var all []*node
			for range count {
				all = append(all, shared.node(nil))
			}
			size := rapid.IntRange(1, 200).Draw(rt, "size")
			// In the mean 95 events a second, of which two may come at once.
			mean := time.Duration(size) * time.Second / 95
			first := rapid.Int64Range(0, int64(2*mean)).Draw(rt, "pause")
			for i := range 100 {
				node := all[i%count]
				require.Equal(t, size, node.send("phc_a", limits, size), "request %d of the project", i)
				require.Equal(t, size, node.sendAs(users, "u", size), "request %d of the user", i)
				pause := first
				if i%2 == 1 {
					pause = int64(2*mean) - first
				}
				time.Sleep(time.Duration(pause))
			}
			for _, node := range all {
				_ = node.stop()
			}
		})
	})
}
