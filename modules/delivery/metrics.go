package delivery

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/produce"
)

type metrics struct {
	acks    [4]tally.Counter // by events.Ack
	lost    tally.Counter
	refused tally.Counter
	drained tally.Counter
	synced  tally.Timer
	letters map[[2]string]tally.Counter

	heatmapsDropped tally.Counter
}

// newMetrics resolves the metrics of the scope: requests by what made their events safe ("acks_total"), messages that
// mode memory has lost ("lost_total"), appends that the spool has refused ("spool_refused_total"), records that have
// left the spool for Kafka ("drain_records_total"), the time of an fsync ("fsync_seconds"), dead letters by reason and
// by where they are ("dead_letters_total"), and heatmap data that was too large to be written beside its event
// ("heatmaps_dropped_total").
func newMetrics(scope tally.Scope) metrics {
	m := metrics{
		lost:    scope.Counter("lost_total"),
		refused: scope.Counter("spool_refused_total"),
		drained: scope.Counter("drain_records_total"),
		synced:  scope.Timer("fsync_seconds"),
		letters: map[[2]string]tally.Counter{},

		heatmapsDropped: scope.Counter("heatmaps_dropped_total"),
	}
	m.acks[events.AckUnsaid] = tally.NoopScope.Counter("")
	for ack := events.AckKafka; ack <= events.AckMemory; ack++ {
		m.acks[ack] = scope.Tagged(map[string]string{"ack": ack.String()}).Counter("acks_total")
	}
	reasons := []string{otherReason}
	for _, class := range produce.Classes() {
		if class.IsRefusal() {
			reasons = append(reasons, class.String())
		}
	}
	for _, reason := range reasons {
		for _, to := range []string{"topic", "disk"} {
			m.letters[[2]string{reason, to}] = scope.Tagged(
				map[string]string{"reason": reason, "to": to}).Counter("dead_letters_total")
		}
	}
	return m
}

// described says what the metrics of newMetrics count.
var described = module.Metrics{
	"acks_total":             "Requests by what made their events safe: kafka, spool or memory.",
	"lost_total":             "Messages that mode memory has lost.",
	"spool_refused_total":    "Requests that the spool did not take, because it was full or the disk failed.",
	"drain_records_total":    "Records that have left the spool because Kafka has them.",
	"fsync_seconds":          "How long the disk took to sync the spool, in seconds.",
	"dead_letters_total":     "Messages that Kafka has refused for good, by reason and by where they are now.",
	"heatmaps_dropped_total": "Heatmap data that was too large to be written beside its event.",
}

// otherReason is the label of dead letters whose reason another module has set, such as a rule.
const otherReason = "other"

// dead returns the counter of dead letters with this reason that went to "topic" or to "disk".
func (m *metrics) dead(reason, to string) tally.Counter {
	if counter, known := m.letters[[2]string{reason, to}]; known {
		return counter
	}
	return m.letters[[2]string{otherReason, to}]
}

// collector shows the state of the spool at the moment of a scrape.
type collector struct {
	d *Delivery

	bytes, limit, untilFull, coming, drained, usable              *prometheus.Desc // of the whole spool
	open                                                          *prometheus.Desc // by topic, like the following
	records, oldest, corrupt, corruptBytes, torn, cursor, removed *prometheus.Desc // by topic
}

var _ prometheus.Collector = (*collector)(nil)

// NewCollector returns a collector of the state of the spool:
//
//   - its size and limit in bytes (capture_delivery_spool_bytes and _spool_max_bytes), and the seconds until it is full
//     at the present rates (_spool_seconds_until_full, +Inf if it does not grow);
//   - the bytes a second that come in and leave (_spool_in_bytes_per_second, _drain_bytes_per_second);
//   - whether it takes records (_spool_usable);
//   - by topic, whether the circuit breaker is open (_breaker_open), how many records wait (_spool_records), and the
//     age of the first one (_spool_oldest_seconds);
//   - by topic, the records and bytes that could not be read any more (_corrupt_records_total, _corrupt_bytes_total),
//     the records whose file was removed (_removed_records_total), and the bytes that were cut off because they were
//     written in part and never acknowledged (_torn_bytes_total);
//   - by topic, whether the start could not read how far delivery had come (_unreadable_cursors_total).
func NewCollector(d *Delivery) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("capture", "delivery", name), help, labels, nil)
	}
	return &collector{
		d:         d,
		bytes:     desc("spool_bytes", "Bytes that the spool takes on the disk."),
		limit:     desc("spool_max_bytes", "Bytes that the spool may take on the disk."),
		untilFull: desc("spool_seconds_until_full", "Seconds until the spool is full if it goes on like this."),
		coming:    desc("spool_in_bytes_per_second", "Bytes a second that come into the spool, smoothed."),
		drained:   desc("drain_bytes_per_second", "Bytes a second that leave the spool for Kafka, smoothed."),
		open: desc("breaker_open", "1 while a topic is left alone because Kafka did not take messages for it.",
			"topic"),
		usable:  desc("spool_usable", "1 if the spool takes records, as far as is known."),
		records: desc("spool_records", "Records that wait in the spool.", "topic"),
		oldest: desc("spool_oldest_seconds", "Age of the first record that waits in the spool, in seconds.",
			"topic"),
		corrupt:      desc("corrupt_records_total", "Records of the spool that could not be read any more.", "topic"),
		corruptBytes: desc("corrupt_bytes_total", "Bytes of the spool that could not be read any more.", "topic"),
		removed: desc("removed_records_total",
			"Records of the spool whose file was removed under the service; they count as corrupt as well.", "topic"),
		torn: desc("torn_bytes_total",
			"Bytes of writes to the spool that were cut short and never acknowledged: no loss.", "topic"),
		cursor: desc("unreadable_cursors_total",
			"Cursors that could not be read: their topic's records may be delivered again.", "topic"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		c.bytes, c.limit, c.untilFull, c.coming, c.drained, c.usable, c.open, c.records, c.oldest, c.corrupt,
		c.corruptBytes, c.torn, c.cursor, c.removed,
	} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	counter := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, labels...)
	}
	gauge(c.coming, c.d.rate.coming())
	gauge(c.drained, c.d.rate.drained())
	gauge(c.usable, oneIf(c.d.spooling.usable() == nil))
	for _, t := range c.d.all() {
		gauge(c.open, oneIf(t.breaker.isOpen()), t.name)
	}
	if !c.d.spooling.isOpen() {
		return
	}
	usage := c.d.spooling.usage()
	gauge(c.bytes, float64(usage.Bytes))
	gauge(c.limit, float64(usage.Max))
	gauge(c.untilFull, untilFull(float64(usage.Room), c.d.rate.coming()-c.d.rate.drained()))
	now := time.Now()
	for _, t := range c.d.all() {
		s := t.spooler.Load()
		if s == nil {
			continue
		}
		stats := s.log.Stats()
		age := 0.0
		if since := s.oldest(); !since.IsZero() {
			age = max(0, now.Sub(since).Seconds())
		}
		gauge(c.records, float64(stats.Records), t.name)
		gauge(c.oldest, age, t.name)
		counter(c.corrupt, float64(stats.CorruptRecords), t.name)
		counter(c.corruptBytes, float64(stats.CorruptBytes), t.name)
		counter(c.removed, float64(stats.LostRecords), t.name)
		counter(c.torn, float64(stats.TornBytes), t.name)
		counter(c.cursor, float64(stats.UnreadableCursors), t.name)
	}
}

// untilFull returns how many seconds it takes to fill so many bytes at a rate in bytes a second.
func untilFull(bytes, rate float64) float64 {
	if rate <= 0 {
		return math.Inf(1)
	}
	return bytes / rate
}

func oneIf(condition bool) float64 {
	if condition {
		return 1
	}
	return 0
}
