// Package chaos proves that an acknowledged event is never lost, nor overtaken by a later one of its user. It starts
// the stock binary with a real Apache Kafka, puts it under a load that keeps account of every answer, breaks something,
// and compares the acknowledged events with the messages in Kafka. The comment of proof.Judge defines to the letter
// which events are lost, duplicated and reordered.
//
// Every scenario proves two things more. First, the readiness is true. A watcher asks each service at /_readiness five
// times a second, and compares the readiness with the answers to the load. After 5 s of nothing but 200 the service has
// to be ready; after 5 s of nothing but 503 it must not be. Second, only events that Kafka refuses by themselves become
// dead letters. Most loads have no such events, so every dead letter is a fault.
//
//	make chaos                        every scenario: fifteen minutes on an idle machine
//	make chaos-long                   the same at full length: 100 kills, 5 GiB in the spool, 10 minutes without Kafka
//	make chaos RUN=Lost/kill-9        one scenario; the names are those of the table in faults_test.go
//	CAPTURE_CHAOS_MODES=auto,spool    only these ack modes
//	CAPTURE_CHAOS_BINARY=path         another binary than that of this checkout
//
// The scenarios have the build tag chaos. They need Linux, Java and Maven (for Kafka, which testkit/services fetches),
// strace, and root, because some of them mount file systems. A scenario that lacks what it needs fails; it is not left
// out. The scenarios use free ports of the loopback interface, and a directory of their own below the system's
// directory for temporary files.
//
// The suite is a module of its own, so that its proxy is no dependency of the service.
//
// # Lines
//
// Every scenario prints a line for each ack mode:
//
//	kafka-stopped/auto       acked=61240 lost=0 duplicated=12 reordered=0 innocent=0 p99=1.01s spooled=46080 untrue=0
//
// Of 61240 events that were answered 200, none is lost, none comes too late, and consumers have got 12 surplus copies.
// Every dead letter is an event that Kafka has refused by itself, and every readiness was true. 99 % of the
// acknowledged requests were answered within 1.01 s. The line has further figures if they are not 0:
//
//	spooled     events whose answer says that they are in the spool
//	resent      events that were acknowledged only after they had been sent several times
//	refused     attempts to send a batch that were answered by another status than 200
//	unanswered  attempts that were not answered, as by a process that was killed
//	damaged     lost events of the records that the scenario has damaged: no others may be lost
//	excused     events that are lost with what the scenario has removed: files of the spool, a topic, the cluster's
//	            data
//	corrupt     records that the service says it has cut out of the spool: at least as many as are damaged
//	dlq         dead letters, in their topic or on the disk
//	mangled     messages that differ from the event that was sent under their id: a fault
//	unknown     messages that nobody has sent: a fault
//	kills, fsyncs, boot, stopped_in   what was done to the service: how often it was killed, how many slow fsyncs it
//	            has made, whether it starts with a read-only spool, how long it takes to stop without Kafka
//	settled_in  how long after a quota was lifted the service is as fast as before
//
// Mode memory promises nothing: its line says how much it loses, and the loss is no fault. Its readiness has to be true
// all the same.
//
// # What is excused
//
// A verdict does not count as lost the events that the scenario itself destroys, and only those:
//
//   - spool-flipped and spool-truncated: the records that have one of the damaged bytes.
//   - spool-deleted: batches that the spool has acknowledged and that were sent before its files were gone.
//   - topic-deleted and cluster-empty: just before the deletion the load pauses, and the judge reads the topics. The
//     messages that the judge sees then have arrived. Batches that were sent between that moment and the deletion may
//     be lost. Batches that Kafka has acknowledged may also be lost if they were sent later, before the topic was there
//     again. Batches that the spool has acknowledged meanwhile may not.
//   - mode-change: batches that mode memory has acknowledged.
//   - partitions-added: a key may move to another partition, and Kafka has no order between two partitions. The judge
//     looks at the order of each key in each partition separately.
//
// In disk-full the service may say that it is not ready while it still answers 200: the spool is nearly full then, see
// delivery.spool.unready_fill.
//
// The performance of an outage has lines of its own. The outage is played until each figure was good once, six times at
// most: the machine may do other work in some of the seconds that are compared.
//
//	outage/auto rate_with=52584/s rate_without=45746/s ratio=0.87 away=10s
//	drain live=5256/s drain=60416/s ratio=11.5 p99_normal=8.2ms p99_drain=11ms records=457000 took=7.6s
//	restart/auto kafka=away spool=5.00GiB ready=210ms rss=48MiB
//	away/auto away=10m0s acked=16413/s rss_half=120MiB rss_max=120MiB
//
// The state that services share has lines of its own, too. The projects, quotas, rates and deduplication are all on:
//
//	storm/kafka acked=6800 lost=0 duplicated=20 reordered=0 innocent=0 p99=31ms caught=20 kills=4 recognized=13100
//	redis-hung/open acked=53280 refused=0 unanswered=0 p99_before=9ms p99_first=60ms p99_later=9ms ... rounds=3
//	redis-hung/closed acked=9200 refused=470 unanswered=0 retry_after=1
//	fair/drop p99_within=2.8ms p99_beyond=2.6ms ratio=0.91 from=0.84 to=1.09 limited=... rounds=12
//
// In a storm caught are the duplicates of events that a service had when it was killed. All duplicates have to be such
// ones: of these nobody could know that Kafka had them. recognized are the events that were sent again and not stored
// again. Without Redis the times are those before the fault, in its first second, and later, when the breaker is open,
// each the least of the rounds, since the machine may do other work in some:
// trips_later are the round trips to Redis then, which have to be so few that no request was one of them. unchecked are
// the events that were stored without a look for duplicates.
// The ratio of fair compares the other projects' latencies while one sends ten times its limit with those while that
// one sends what it may. It lies between from and to with a probability of 99 %.
//
// The load is on the same machine as the service, Kafka and its proxy, so rates and latencies are for comparing within
// a run.
//
// If a scenario fails, the line is followed by the expectations that failed, the end of the service's log, and the
// directory in which the log and the spool stay.
//
// # What is not proven
//
// Nothing here cuts the power: testkit/powercut does. A killed process leaves everything that it has written to the
// kernel. So these scenarios can't tell whether the service calls fsync before it acknowledges, only that it bears a
// slow fsync. The clock is not the machine's clock: the binary of the clock's scenario has another time.Now, which is
// wrong by as much as the scenario says. Timers follow the monotonic clock there, as they do in the original. The
// kernel's own times, such as those of files, are moved while the service is down.
package chaos
