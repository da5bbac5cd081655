// Package embedded is a Kafka-protocol broker in this process, for a service that has no cluster: any Kafka client can
// read from it, and its data survives a restart. It runs only when kafka.brokers is empty.
//
// The contract: what the broker has acknowledged is on the disk. It survives the end of this process, however that
// comes (kill -9 included), and a power loss. An error of the disk is noticed: what it concerns is not acknowledged,
// and nothing is until the next start. The wait for the disk makes an acknowledgement ten to twenty times as long, see
// BenchmarkAcknowledge. With sync_writes off, an acknowledgement says only that the operating system has the batch: a
// power loss takes what was acknowledged last, and with it what the spool had kept safe and has let go since. The
// offsets that consumers commit are never waited for: after a power loss a consumer may read again what it has read. It
// is one node, not replicated. Who needs more uses a cluster: kafka.brokers.
//
// Each topic keeps at most retention_bytes and nothing older than retention; the oldest events are removed first. That
// holds for topics that clients create, too, whatever settings they ask for.
//
// Nobody has to log in: who reaches the port can read, write and delete. What no client can do is end the process or
// fill its memory: guard.go says what is let through. Clients are offered what producers, consumers and their tools
// need, in versions up to those of Kafka 2.3. There are no transactions, settings are not changed through the port, and
// offsets are not looked up by time. Clients may create 200 partitions, and have 500 connections.
package embedded
