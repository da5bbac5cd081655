package delivery

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// rateLimiter limits the rate of all drains together to what live traffic can spare: speed times the rate at which
// bytes come into the spool, and at least minRate.
type rateLimiter struct {
	drain     func() DrainConfig // the section in force
	limiter   *rate.Limiter
	unlimited bool // for a drain without live traffic beside it; set before the first wait

	in, out     atomic.Int64  // bytes since the start
	inRate      atomic.Uint64 // bytes a second, the bits of a float64
	outRate     atomic.Uint64
	lastIn      int64
	lastOut     int64
	lastMeasure time.Time
}

const (
	// chunkBytes is how many bytes of a log are sent at a time, and waited for. A crash may have so many sent twice.
	chunkBytes = 256 << 10

	measureEvery = time.Second
	// smoothing is the weight of the latest measurement.
	smoothing = 0.3
)

func newRateLimiter(drain func() DrainConfig) *rateLimiter {
	return &rateLimiter{
		drain: drain, limiter: rate.NewLimiter(rate.Limit(drain().MinRate), chunkBytes), lastMeasure: time.Now(),
	}
}

// came counts bytes that were added to the spool.
func (l *rateLimiter) came(bytes int) { l.in.Add(int64(bytes)) }

// went counts bytes that have left the spool.
func (l *rateLimiter) went(bytes int) { l.out.Add(int64(bytes)) }

// wait waits until so many bytes may be sent.
func (l *rateLimiter) wait(ctx context.Context, bytes int) error {
	for ; bytes > 0 && !l.unlimited; bytes -= chunkBytes {
		if err := l.limiter.WaitN(ctx, min(bytes, chunkBytes)); err != nil {
			return err
		}
	}
	return nil
}

// measure takes the rates since its last call, and sets the limit.
func (l *rateLimiter) measure(now time.Time) {
	seconds := now.Sub(l.lastMeasure).Seconds()
	if seconds <= 0 {
		return
	}
	in, out := l.in.Load(), l.out.Load()
	smooth(&l.inRate, float64(in-l.lastIn)/seconds)
	smooth(&l.outRate, float64(out-l.lastOut)/seconds)
	l.lastIn, l.lastOut, l.lastMeasure = in, out, now
	drain := l.drain()
	l.limiter.SetLimit(rate.Limit(max(float64(drain.MinRate), drain.Speed*l.coming())))
}

func smooth(value *atomic.Uint64, latest float64) {
	before := math.Float64frombits(value.Load())
	value.Store(math.Float64bits(before + smoothing*(latest-before)))
}

// coming returns how many bytes a second come into the spool, drained returns how many leave it.
func (l *rateLimiter) coming() float64  { return math.Float64frombits(l.inRate.Load()) }
func (l *rateLimiter) drained() float64 { return math.Float64frombits(l.outRate.Load()) }

// measure keeps the rates up to date.
func (d *Delivery) measure(context.Context) {
	for d.pause(measureEvery) {
		d.rate.measure(time.Now())
	}
}
