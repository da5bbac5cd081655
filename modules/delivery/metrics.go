package delivery

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
	"github.com/uber-go/tally/v4"

	"github.com/opencapture/capture/modules/events"
)

type metrics struct {
	acks    [4]tally.Counter // by events.Ack
	lost    tally.Counter
	refused tally.Counter
	drained tally.Counter
	synced  tally.Timer
	dead    map[[2]string]tally.Counter
}

// newMetrics resolves the metrics of the scope: requests by what made their events safe ("acks_total"), messages that ack memory has
// lost ("lost_total"), requests that the spool did not take ("spool_refused_total"), records that have left it for Kafka
// ("drain_records_total"), the time of an fsync ("fsync_seconds"), and dead letters ("dead_letters_total") by reason and by where they
// are.
func newMetrics(scope tally.Scope) metrics {
	m := metrics{
		lost:    scope.Counter("lost_total"),
		refused: scope.Counter("spool_refused_total"),
		drained: scope.Counter("drain_records_total"),
		synced:  scope.Timer("fsync_seconds"),
		dead:    map[[2]string]tally.Counter{},
	}
	for ack := events.AckKafka; ack <= events.AckMemory; ack++ {
		m.acks[ack] = scope.Tagged(map[string]string{"ack": ack.String()}).Counter("acks_total")
	}
	for _, reason := range []string{"too_large", "invalid", "unauthorized"} {
		for _, to := range []string{"topic", "disk"} {
			m.dead[[2]string{reason, to}] = scope.Tagged(map[string]string{"reason": reason, "to": to}).Counter("dead_letters_total")
		}
	}
	return m
}

// buried counts the dead letters of a reason that went to "topic" or "disk".
func (m *metrics) buried(reason, to string) tally.Counter {
	if counter, known := m.dead[[2]string{reason, to}]; known {
		return counter
	}
	return m.dead[[2]string{"invalid", to}]
}

// collector shows the state of the spool, as it is at the moment of a scrape.
type collector struct {
	d *Delivery

	bytes, limit, untilFull, coming, drained, open       *prometheus.Desc // of the whole spool
	records, oldest, corrupt, corruptBytes, torn, cursor *prometheus.Desc // by topic
}

var _ prometheus.Collector = (*collector)(nil)

// NewCollector returns a collector of the state of the spool: its size and limit in bytes (capture_delivery_spool_bytes and
// _spool_max_bytes), how long it takes until it is full as things go (_spool_seconds_until_full, +Inf if it does not grow), bytes a
// second that come in and leave (_spool_in_bytes_per_second, _drain_bytes_per_second), whether the circuit breaker lets nothing
// through to Kafka (_breaker_open), and by topic how many records wait (_spool_records), the age of the first
// (_spool_oldest_seconds), what could not be read any more (_corrupt_records_total, _corrupt_bytes_total), what was cut off because it
// was written in part and never acknowledged (_torn_bytes_total), and whether the start could not read how far delivery had come
// (_unreadable_cursors_total).
func NewCollector(d *Delivery) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("capture", "delivery", name), help, labels, nil)
	}
	return &collector{
		d:            d,
		bytes:        desc("spool_bytes", "Bytes that the spool takes on the disk."),
		limit:        desc("spool_max_bytes", "Bytes that the spool may take on the disk."),
		untilFull:    desc("spool_seconds_until_full", "Seconds until the spool is full if it goes on like this."),
		coming:       desc("spool_in_bytes_per_second", "Bytes a second that come into the spool, smoothed."),
		drained:      desc("drain_bytes_per_second", "Bytes a second that leave the spool for Kafka, smoothed."),
		open:         desc("breaker_open", "1 while Kafka is left alone because it did not answer in time."),
		records:      desc("spool_records", "Records that wait in the spool.", "topic"),
		oldest:       desc("spool_oldest_seconds", "Age of the first record that waits in the spool, in seconds.", "topic"),
		corrupt:      desc("corrupt_records_total", "Records of the spool that could not be read any more.", "topic"),
		corruptBytes: desc("corrupt_bytes_total", "Bytes of the spool that could not be read any more.", "topic"),
		torn:         desc("torn_bytes_total", "Bytes of writes to the spool that were cut short and never acknowledged: no loss.", "topic"),
		cursor:       desc("unreadable_cursors_total", "Cursors that could not be read: their topic's records may be delivered again.", "topic"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		c.bytes, c.limit, c.untilFull, c.coming, c.drained, c.open, c.records, c.oldest, c.corrupt, c.corruptBytes, c.torn, c.cursor,
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
	breaker := 0.0
	if c.d.breaker.State() == gobreaker.StateOpen {
		breaker = 1
	}
	gauge(c.open, breaker)
	gauge(c.coming, c.d.pace.coming())
	gauge(c.drained, c.d.pace.drained())
	opened := c.d.spool.Load()
	if opened == nil {
		return
	}
	usage := opened.Usage()
	gauge(c.bytes, float64(usage.Bytes))
	gauge(c.limit, float64(usage.Max))
	gauge(c.untilFull, untilFull(float64(usage.Room), c.d.pace.coming()-c.d.pace.drained()))
	now := time.Now()
	for _, q := range c.d.all() {
		stats := q.log.Stats()
		age := 0.0
		if since := q.oldest(); !since.IsZero() {
			age = max(0, now.Sub(since).Seconds())
		}
		gauge(c.records, float64(stats.Records), q.topic)
		gauge(c.oldest, age, q.topic)
		counter(c.corrupt, float64(stats.CorruptRecords), q.topic)
		counter(c.corruptBytes, float64(stats.CorruptBytes), q.topic)
		counter(c.torn, float64(stats.TornBytes), q.topic)
		counter(c.cursor, float64(stats.UnreadableCursors), q.topic)
	}
}

// untilFull is how many seconds it takes to fill so many bytes.
func untilFull(bytes, rate float64) float64 {
	if rate <= 0 {
		return math.Inf(1)
	}
	return bytes / rate
}
