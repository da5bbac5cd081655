// Package powercut proves that an acknowledged event survives a power cut. It records the system calls of the stock
// binary under load, lays out what the disk may hold if the power is cut at some call, starts the binary on that, and
// holds what then is in Kafka against what had been acknowledged.
//
//	make powercut                     every scenario, 30 cuts each
//	make powercut-long                300 cuts each
//	make powercut RUN=Cut/drain       the scenarios of that name; powercut_test.go has the table
//	CAPTURE_POWERCUT_BINARY=path      another binary than that of this checkout
//	go test -tags powercut -powercut.cuts=N -powercut.seed=N
//
// The scenarios have the build tag powercut. They need Linux, strace and setpriv (of util-linux), and fail without.
// They take free ports of the loopback interface, and a directory below the system's for temporary files.
//
// # How it is done
//
//  1. record starts the service under strace, in an empty directory. A load of HTTP requests notes when each answer
//     has come. The service is killed, started again and stopped; in some scenarios there is Kafka (kfake, in the
//     test's process), which comes and goes. strace stops a thread at the beginning and at the end of each call and
//     writes down when: these are the steps.
//  2. Disk follows the steps. It knows of each file what was synced and which writes came afterwards, and of each
//     directory the names that were synced and the changes since. At the end of each process its page cache has to be
//     what is really in the directory, to the byte: so no call that matters is unknown to it.
//  3. The power is cut before steps that are chosen at random: half of them anywhere, half near a change of names,
//     which is rare among all the writes. Disk.After lays out what is left: once nothing but what was synced, once any
//     part of the rest, and once, in turn, everything, only names, or only content.
//  4. The service starts on each layout with an empty Kafka. It has to take new events, and to empty its spool.
//  5. The Judge of testkit/proof is told the batches whose answers had come before the step, by the same clock, and
//     what is in Kafka: the messages that had been acknowledged to the service before the cut, and behind them those
//     that have come after it. Kafka keeps its answers to itself for 10 ms, so that what the service does too early is
//     before the answer.
//
// # What may be left
//
// A sync is certain to have worked at its end, for the writes and changes of names that had ended when it began. Of
// everything else:
//
//   - A sector of 512 bytes holds any of the states that it had in the page cache since it was synced. Sectors are
//     independent: a later write may be there without an earlier one, or one may be there in parts.
//   - A file that has become longer has any length from that which was synced to the longest, with zeros where nothing
//     was written.
//   - A change of names has happened or not, in any order: a new file may have no name, one that was removed may be
//     back, a directory may be missing with all that was synced in it. A rename happens as a whole.
//
// This is what POSIX allows. Where Disk.Journal is set, names change in order, and the sync of a new file makes its
// name certain, as with ext4 and XFS.
//
// # Lines
//
// Every scenario prints a line:
//
//	powercut/drain-auto   cuts=30 layouts=90 acked=6828 lost=0 reordered=0 corrupt=0 failed=0 unsynced=29
//	                      steps=4244 took=35.1s
//
// 6828 events were acknowledged while 4244 steps were recorded. Over 90 layouts, no event was lost or came behind a
// later one of its user, and the service reported no record as damaged: bytes that were never acknowledged are torn,
// not corrupt. No layout failed, as one does on which the service does not start, takes no events, or does not empty
// its spool. 29 of the cuts found something that was not synced. Where a layout is not borne, the step, what was not
// durable, and a copy of the layout are shown.
//
//	spool, auto              Kafka is away: everything goes to the spool
//	drain-spool, drain-auto  Kafka comes and goes: cursors move, and segments are removed
//	again                    after a first cut the power is cut once more, while the service recovers, drains and
//	                         takes events
//	embedded                 the embedded broker with sync_writes, on a disk with a journal
//	embedded-posix           the same where only POSIX holds. It loses events, since the broker never syncs a
//	                         directory; that is no fault here, but shows what sync_writes can't promise
//
// # Whether it can fail
//
// Mistakes were planted in modules/delivery/spool, each in a copy of the tree, and the binaries were tried with
// CAPTURE_POWERCUT_BINARY: 10 cuts of spool and of drain-spool, and 30 for the last. The first line is the copy
// without any mistake.
//
//	mistake                                          spool                     drain-spool
//	none                                             lost=0 corrupt=0          lost=0 corrupt=0
//	commits do not sync the segment                  lost=22247 corrupt=13672  lost=12988 corrupt=11068
//	the directory of a new segment is not synced     lost=10028 corrupt=2348   lost=11628 corrupt=4852
//	requests are answered before write and sync      lost=72 corrupt=0         lost=40 corrupt=0
//	a segment is removed before the cursor is synced not found                 lost=0 corrupt=115384
//
// In spool nothing is delivered, so no segment is removed. A segment that was removed too early was in Kafka, so
// nothing is lost: but the service takes it for lost, which is what corrupt says. Ten cuts have been too few to find
// that.
//
// On the code as it was when this was written, the suite found by itself that nobody synced the directory in which
// ./data was made; that a new segment without a record cost the records of another; that such a segment made the
// number of records in the spool run below zero; and that a write that was torn in the middle counted as damage.
//
// # What is not proven
//
// The disk is taken to keep what it has confirmed. The model does not hand out other files' old content in place of
// zeros, and no bits are flipped. strace slows the service down, which changes how its threads take turns.
package powercut
