// Package hostile attacks a running service. It starts the stock binary with a small budget of memory, sends it the
// worst that a stranger can send, from many connections at once, and looks at three things: how much memory the process
// takes, what the attackers are answered, and whether a good client is served all the while.
//
//	make hostile                      every attack: four minutes on an idle machine
//	make hostile RUN=Memory/bombs     the attacks of that name
//	CAPTURE_HOSTILE_BINARY=path       another binary than that of this checkout
//
// The attacks have the build tag hostile. They need Linux. They use free ports of the loopback interface, and a
// directory below the system's directory for temporary files. Kafka is a broker in the test's process that acknowledges
// everything and keeps nothing.
//
// # How to add an attack
//
// A kind of attack has a file with a test of its own. The test calls start for a service, and siege for the attackers
// and the good client; siege prints a line for each attack and checks what holds for all of them. What an attack sends
// is a function that returns a request: see attack.
//
// # Lines
//
// Every attack prints a line:
//
//	hostile/v1-rejected        sent=64 answers=200:4,503:60 peak=141MiB good=31 refused=0 unanswered=0 p99=307ms
//
// Of 64 requests 4 were answered 200 and 60 were answered 503; status 0 stands for an answer that had not come when the
// attack was over. The process has never taken more than 141 MiB. The good client has had 31 batches acknowledged. No
// attempt of it was refused or left without an answer, and 99 % of its batches were acknowledged within 307 ms, with
// all attempts. Latencies are for comparing within a run: the attackers are on the same machine.
//
// A line fails the test if the peak is over the bound, if an answer has a status that the attack must not cause, or if
// the good client is refused often, is left without an answer, or waits too long.
//
// # Whether it can fail
//
// Before memory was one budget, the same attacks on a service with 64 MiB for requests took 875 MiB (small-batches),
// 444 MiB (names/objects) and up to 281 MiB (twelve others).
package hostile
