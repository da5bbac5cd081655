// Package hostile attacks a running service. It starts the stock binary with a small budget of memory, sends it the
// worst that a stranger can send, from many connections at once, and looks at three things: how much memory the process
// takes, what the attackers are answered, and whether a good client is served all the while.
//
//	make hostile                      every attack, in four minutes at most
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
//	hostile/tiny-events      sent=412 answers=200:96,503:316 peak=171MiB good=50 late=0 p99=210ms
//
// Of 412 requests 96 were answered 200 and 316 were answered 503. The process has never taken more than 171 MiB. The
// good client has sent 50 batches, and none of them was refused more often than an SDK tries again. 99 % of its batches
// were acknowledged within 210 ms, with all attempts.
package hostile
