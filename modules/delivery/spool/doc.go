// Package spool keeps payloads in named logs on the disk until they have been delivered. It knows nothing of what is
// in them.
//
// The contract: when Append has returned without an error, its records survive the end of the process, however it
// comes, and a power loss, as far as the disk keeps what it has confirmed. Read returns every record at least once: a
// record that was read and not marked with Done is read again after a restart. Records are numbered per log, from 1
// and ever upwards. A number is never used for two records that both were acknowledged, unless the cursor of a log is
// lost together with the log's last records.
//
// What can happen that a caller should know of:
//
//   - An Append whose context ends may still be committed; its records are then read like others. LogStats.Pending
//     tells that there may be such records. Records of a commit that failed are not read in the same process, but a
//     later Open may find them whole; then they are.
//   - A write or fsync that failed is not tried again on the same file: the operating system may report the second
//     fsync as good although the data is lost. The segment ends where the last successful commit has ended, and the
//     next Append makes another segment.
//   - Somebody may remove files, or the whole directory, while the spool is in use. Each commit looks whether its
//     segment, the cursor and the lock are still in their places, after the fsync and before the records are
//     acknowledged. If not, the spool makes them anew and writes the commit again. What was in the files, and neither
//     delivered nor read, is lost: see LogStats.LostRecords. If another process has locked the directory meanwhile,
//     this one never touches it again, and Append and Read return an error.
//   - Content that is damaged is skipped, as narrowly as possible, counted and logged. It stops neither a log nor
//     Open. A record is given up only if some of its own bytes are damaged. A payload that imitates a record could be
//     taken for one only where the head of the record around it is damaged, or the end of the segment is missing.
//   - A cursor that cannot be written does not stop delivery: records come twice after a restart. Segments are not
//     removed meanwhile: one goes only after a cursor behind it is durable in both slots.
//
// One process at a time uses a directory; see Inspect for others that want to look. What Open does depends on the
// number of files, not on how much is in them: of each log it scans one segment, and one more for each at the end in
// which there is no record.
//
// # Moving records to another log
//
// Read them from the one, append them to the other with AppendExempt, and then mark them with Done in the first.
// AppendExempt returns once the records are durable, so they are always in one of the two logs at least, whenever the
// process ends or the power fails. If that happens between the two steps, they are in both: whoever moves them again,
// or delivers both logs, delivers them twice, as the contract allows.
//
// # Files
//
// Every log is a directory, named as the log with whatever is not a letter, a digit or one of "._-" percent-encoded.
// It holds segments and the cursor. All integers are little-endian; the checksums are CRC-32C.
//
// A segment is named for the number of its first record, as 20 digits and ".log". It starts with a header:
//
//	magic u32 | version u32 | follows u64 | checksum u32 over what is before
//
// "follows" is the number behind the last record that was committed before the segment was made. The numbers from
// there up to the segment's first record belong to commits that failed: they are no loss. Then come records with
// consecutive numbers:
//
//	magic u32 | length u32 | number u64 | commit u32 | checksum u32 over length, number, commit and payload | payload
//
// "commit" is how many records of the same commit are before this one. A commit is a group of records that are
// written and synced together, always to one segment. The next commit is written only after that, and the records are
// acknowledged only after that. A power loss may leave any part of what was not synced, so a hole with whole records
// behind it may be damage, or a torn write. It is damage if a record behind the hole belongs to a later commit than
// the first one in the hole, or if the cursor says that this was committed: then Read counts it as lost. It is a torn
// write if not: then Open cuts the log off at the hole.
//
// The version is 2. A segment of another version is neither read, nor cut off, nor passed: Read returns an error when
// it comes to that segment, and Append makes another one.
//
// The cursor file has two slots, in sectors of their own. They are written in turn, and the valid one with the
// greatest cursor counts:
//
//	cursor u64 | committed u64 | checksum u32 over both
//
// The cursor is the number of the first record that is not done. "committed" is the number behind the last record
// that was committed. It tells damage at the end of a log, which is a loss, from a torn write, which is none because
// it was never acknowledged.
package spool
