// Package embedded is a Kafka-protocol broker in this process, for a service that has no cluster. Any Kafka client can
// read from it, and its data survives a restart. It runs only when kafka.brokers is empty.
//
// The contract: a batch that the broker has acknowledged is on the disk. It survives every end of this process (kill -9
// included) and a power loss. The broker notices an error of the disk: it does not acknowledge the batch concerned, and
// acknowledges nothing more until the next start. The wait for the disk makes an acknowledgement ten to twenty times as
// long, see BenchmarkAcknowledge. With sync_writes off, an acknowledgement says only that the operating system has the
// batch. A power loss then takes the batches that were acknowledged last, and with them events that the spool had kept
// safe and has let go since. The broker never waits for the disk to keep the offsets that consumers commit: after a
// power loss a consumer may read messages again. The broker is one node, not replicated. An operator who needs more
// uses a cluster: kafka.brokers.
//
// Each topic keeps at most retention_bytes, and nothing older than retention; the broker removes the oldest events
// first. That holds also for topics that clients create, whatever settings they ask for.
//
// Nobody has to log in: everyone who reaches the port can read, write and delete. But no client can end the process or
// fill its memory: guard.go says which requests pass. The broker offers the requests that producers, consumers and
// their tools need, in versions up to those of Kafka 2.3. It has no transactions, does not change settings through the
// port, and does not look up offsets by time. Clients may create 200 partitions, and have 500 connections.
package embedded
