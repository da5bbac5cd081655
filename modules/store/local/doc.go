// Package local is the store of a single node, in its process, with nothing installed.
//
// What it promises beyond the contract of modules/store:
//
//   - A call waits for no other machine. Reserve and Settle never touch the disk. Take and Adjust wait until the
//     operating system has what they have changed, but no longer than store.timeout; Put waits until the disk has it.
//   - Quotas and rates survive any end of the process exactly. What was settled survives it if it was settled a few
//     milliseconds before. A loss of power takes what happened in the last second, of records nothing.
//   - Reservations are in memory alone: the end of the process ends them, as the end of their lease would.
//   - A digest is done for its window and at most an eighth of it longer. If there is no more memory
//     (store.local.memory), what was done longest ago is forgotten first: about a sixteenth of all at a time, counted.
//   - If there is no room for another counter (store.local.counters) or reservation, the call fails with
//     store.ErrUnavailable. What is there goes on.
//   - If the disk does not take what is written, the store goes on in memory, and says so in the log, in a metric and
//     in its Status. It tries again, after pauses of up to a minute, until the disk has everything again. Only Put
//     fails meanwhile, since the person who changes a record is there to be told.
//
// # Files
//
// One process at a time uses the directory (store.dir); it has to be private (modules/private). Files are named for a
// number of 20 digits:
//
//	secret                     what the digests are masked with
//	digests-NUMBER.log         digests of one generation; removed as a whole when their window is over
//	counters-NUMBER.snapshot   all counters of quotas and rates
//	counters-NUMBER.log        what has changed since the snapshot of the number, and since those before it
//	records-KIND.json          the records of a kind, for people to read
//
// All but the records are files of frames, with checksums (see frames.go). Damage costs what is behind it in its file.
// A file of records that cannot be read is set aside under another name, and the log says so.
package local
