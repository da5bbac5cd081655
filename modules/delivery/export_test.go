package delivery

import (
	"time"

	"github.com/opencapture/capture/configs"
)

// Hurry shortens the times of a delivery that has not been started: breakers and drains try again after a moment, and
// readiness soon forgets old outcomes.
func Hurry(d *Delivery) {
	d.times = times{
		openFor: 20 * time.Millisecond, reopen: 10 * time.Millisecond, firstPause: time.Millisecond,
		lastPause: 40 * time.Millisecond, slow: time.Second, doorShut: time.Second, counts: time.Second,
		allFails: 100 * time.Millisecond,
	}
}

// IsOpen reports whether the spool is open.
func IsOpen(d *Delivery) bool { return d.spooling.isOpen() }

// IsWaiting reports whether new messages for the topic go into the spool, or fail.
func IsWaiting(d *Delivery, topic string) bool { return d.topic(topic).isWaiting() }

// Waits reports whether any topic has anything in the spool.
func Waits(d *Delivery) bool { return d.waits() }

// IsLeftAlone reports whether the breaker of a topic is open.
func IsLeftAlone(d *Delivery, topic string) bool { return d.topic(topic).breaker.isOpen() }

// OnDisk returns how many dead letters are on the disk.
func OnDisk(d *Delivery) uint64 {
	return d.spooling.opened.Load().Log(deadLetterLog).Stats().Records
}

// HasRoom reports whether the buffer has room for so many bytes.
func HasRoom(d *Delivery, bytes int64) bool {
	if !d.buffer.TryAcquire(bytes) {
		return false
	}
	d.buffer.Release(bytes)
	return true
}

// BreakAppends makes each append panic once its records are in the log. The delivery must not have been started.
func BreakAppends(d *Delivery) { d.rate = nil }

// The following are the commands, as the command line gets them.
var (
	SpoolCommand = spoolCommand
	DLQCommand   = dlqCommand
)

// Chunk is how many bytes of a log are sent at a time.
const Chunk = configs.ByteSize(chunkBytes)

// BreakEncoding makes each batch of a delivery that has not been started panic when the batch has taken its room and
// is encoded.
func BreakEncoding(d *Delivery) { d.metrics.heatmapsDropped = nil }

// Appending returns how many appends of a topic have not ended.
func Appending(d *Delivery, topic string) int {
	s := d.topic(topic).spooler.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.appending
}

// WaitLong has requests of mode kafka wait for the spool as long as a busy machine may need.
func WaitLong(d *Delivery) { d.times.slow = 2 * time.Minute }
