// Package embedded is a Kafka-protocol broker in this process, for a service that has no cluster: any Kafka client can read
// from it, and its data survives a restart. It runs only when kafka.brokers is empty.
//
// The contract: what the broker has acknowledged is in the operating system's page cache, so it survives the end of this
// process, however that comes (kill -9 included). It survives the end of the machine only with sync_writes, which syncs two
// files for every request (a lone event then waited 0.46 ms instead of 0.05 ms on the SSD where it was measured, see
// BenchmarkAcknowledge), and only as far as the disk reports its errors, which the broker does not look at. It is one node, not
// replicated. Who needs more uses a cluster: kafka.brokers.
//
// Each topic keeps at most retention_bytes and nothing older than retention; the oldest events are removed first.
package embedded
