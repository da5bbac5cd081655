package events

import "github.com/prometheus/client_golang/prometheus"

// collector shows a ledger to Prometheus. It takes one snapshot per scrape, so that the sum is exact in every scrape.
// Separate counters would be read one after the other, and would differ by the events that end in between.
type collector struct {
	ledger     *Ledger
	received   *prometheus.Desc
	accepted   *prometheus.Desc
	duplicates *prometheus.Desc
	dropped    *prometheus.Desc
	rejected   *prometheus.Desc
	failed     *prometheus.Desc
}

var _ prometheus.Collector = (*collector)(nil)

// NewCollector returns a collector of the ledger's totals: capture_events_received_total and
// capture_events_accepted_total, and by reason capture_events_dropped_total, capture_events_rejected_total and
// capture_events_failed_total. In every collection received equals the sum of the others, to the event.
// capture_events_duplicates_total counts those of the accepted events that an earlier request had brought already.
func NewCollector(ledger *Ledger) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("capture", "events", name), help, labels, nil)
	}
	return &collector{
		ledger:     ledger,
		received:   desc("received_total", "Events that have been received and have ended in an outcome."),
		accepted:   desc("accepted_total", "Events that are safe where the sink promised to put them."),
		duplicates: desc("duplicates_total", "Those of the accepted events that an earlier request had brought."),
		dropped:    desc("dropped_total", "Sound events that were not kept, by the service's own policy.", "reason"),
		rejected:   desc("rejected_total", "Events that were at fault themselves.", "reason"),
		failed:     desc("failed_total", "Events that could not be made safe and are to be sent again.", "reason"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.received, c.accepted, c.duplicates, c.dropped, c.rejected, c.failed} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	counter := func(desc *prometheus.Desc, n uint64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	byReason := func(desc *prometheus.Desc, counts map[Reason]uint64) {
		for reason, n := range counts {
			counter(desc, n, string(reason))
		}
	}
	totals := c.ledger.Snapshot()
	counter(c.received, totals.Received)
	counter(c.accepted, totals.Accepted)
	counter(c.duplicates, totals.Duplicates)
	byReason(c.dropped, totals.Dropped)
	byReason(c.rejected, totals.Rejected)
	byReason(c.failed, totals.Failed)
}
