// Package state proves that limits hold whatever happens to the nodes and to the store that they share: four processes
// of the stock binary, with clocks that differ by four seconds, on a real Redis, under random traffic, and one process
// that is its own store. Nodes are killed and stopped, Redis is killed, hung and replaced by a replica, alone, under
// Sentinels and in a Cluster, and Kafka goes away, at random. Then the judge compares what was sent with what lies in
// Kafka:
//
//   - over: no quota, no rate and no rate of a user has let one event too many pass.
//   - stranded: when all nodes have spent what they hold, what is left of a quota that was used up is at most one
//     percent, plus the events that were on their way in a process that was killed. Of such an event nobody knows
//     whether it was counted. Beside that, a node that is killed takes along what was given back to it in the seconds
//     before, and has it again when it is back.
//   - So refunds are exact: an event that failed, because Kafka was away, and is not given back would be stranded; one
//     that is given back twice would let another pass.
//
// The tests have the build tag state:
//
//	make state                        all tests
//	make state RUN=Sentinel           one test
//	CAPTURE_STATE_SEED=7 make state   the random numbers of an earlier run
//	CAPTURE_STATE_BINARY=path         another binary than that of this checkout, for nodes with the right clock
//
// Each test prints a line for each project:
//
//	four-nodes/month  limit=events=20000/month passed=19987 over=0 stranded=13 in_flight=21
//
// of which in_flight are the events whose process was killed while it had them, and that are not in Kafka. late are
// events that were answered 503 because Kafka took too long for them, and that Kafka has taken all the same: they were
// given back, as an event has to be that nobody has promised anything about, and count as not passed.
package state
