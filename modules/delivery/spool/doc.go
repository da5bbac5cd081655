// Package spool keeps payloads in named logs on the disk until they have been delivered. It knows nothing of what is in them.
//
// The contract: when Append has returned without an error, its records survive the end of the process, however that comes, and a
// power loss, as far as the disk keeps what it has confirmed. A reader gets every record at least once: what was read and not
// marked with Done comes again after a restart. Records are numbered per log, from 1 and ever upwards; a number is never used
// for two records that both were acknowledged, unless the cursor of a log that is empty is lost.
//
// What can happen that a caller should know of:
//
//   - An Append whose context ends may still be committed, and is then read like others. The records of one that failed are not
//     read in the same process, but a later Open may find them whole; then they are.
//   - A write or fsync that failed is not tried again on the same file, since the operating system may report the second fsync
//     as good although the data is lost. The file ends where the last successful commit ended, and the next Append makes another.
//   - Content that is damaged is skipped, as narrowly as possible, counted and logged; it never stops a log, nor Open. A payload
//     that imitates a record could be taken for one only where the head of the record around it is damaged.
//   - A cursor that cannot be written does not stop delivery: records come twice after a restart.
//
// One process at a time uses a directory. What Open does does not depend on how much is kept, only on the number of files: of
// each log it scans one segment.
//
// # Files
//
// Every log is a directory, named as the log with whatever is not a letter, a digit or one of "._-" percent-encoded. It holds
// segments and the cursor. All integers are little-endian; the checksums are CRC-32C.
//
// A segment is named for the number of its first record, as 20 digits and ".log". It starts with a header:
//
//	magic u32 | version u32 | follows u64 | checksum u32 over what is before
//
// "follows" is the number after the last record committed before the segment was made: numbers between it and the first were
// given to records that failed, and are no loss. Then come records with consecutive numbers:
//
//	magic u32 | length u32 | number u64 | checksum u32 over length, number and payload | payload
//
// The cursor file has two slots, in sectors of their own and written in turn, of which the valid one with the highest cursor counts:
//
//	cursor u64 | committed u64 | checksum u32 over both
//
// The cursor is the number of the first record that is not delivered. "committed" is a number that the log had reached, so that
// damage at its end is told from a write that was cut off, which is no loss because it was never acknowledged.
package spool
