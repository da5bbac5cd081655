// Command benchstate measures what the shared state costs: projects, quotas, rates and deduplication, with a real Kafka
// and a real Redis, in steady state, for 1,000 projects whose batches of 50 events and single events are mixed.
//
//	make bench-state
//
// It prints three figures, each with its goal. It exits with 1 if one of the first two is missed, which are counts, and
// with -strict also if the third is missed, which no busy machine can tell for sure:
//
//   - how many operations on Redis an event costs for projects, quotas and rates. A script is one operation.
//   - how many round trips to Redis a request costs with deduplication.
//   - how much more CPU time the service takes for an event with everything on than with everything off, in alternating
//     runs of the same binary, and how much more with each part alone. With everything off the service still takes real
//     requests, and writes every event to the real Kafka. The time of Redis and of Kafka does not count.
//
// All these runs have the same rate of requests: three quarters of what the service takes with everything on. A service
// that is idle for most of the time takes more time for an event, to fall asleep and wake up. The requests are made
// before the run, and the service has a core for itself (-core), since programs that share a core take its caches from
// each other. The ratio is that of the two runs of a round, and the median of the rounds.
//
// A proxy in front of Redis counts the operations and round trips. It is not there while CPU time is measured.
package main
