// Package spool keeps payloads in named logs on the disk until they have been delivered. A payload is any bytes.
//
// The contract: when Append has returned without an error, its records survive any end of the process. They also
// survive a power loss, if the disk keeps what it has confirmed. Read returns every record at least once: after a
// restart it returns the records again that Done has not marked. Each log numbers its records from 1 upwards. No two
// acknowledged records get the same number, unless the cursor of a log is lost together with the log's last records.
//
// Some cases that a caller should know:
//
//   - The records of an Append whose context ends may still be committed; Read then returns them like others.
//     LogStats.Pending tells that there may be such records. If a commit fails, this process does not read its records.
//     A later Open may find them whole; then they are read.
//   - After a failed write or fsync the spool does not try the same file again: the operating system may report the
//     second fsync as good although the data is lost. The segment ends where the last successful commit has ended, and
//     the next Append makes another segment.
//   - Somebody may remove files, or the whole directory, while the spool is in use. Each commit, after the fsync and
//     before it acknowledges the records, looks whether its segment, the cursor and the lock are still in their places.
//     If not, the spool makes them anew and writes the commit again. The records of the removed files that were neither
//     delivered nor read are lost: see LogStats.LostRecords. If another process has locked the directory meanwhile,
//     this process never touches the directory again, and Append and Read return an error.
//   - Read skips damaged content, as narrowly as possible, and counts and logs it. Damage stops neither a log nor Open.
//     A record is given up only if some of its own bytes are damaged. A payload may imitate a record. It could be taken
//     for a record only where the head of the record around it is damaged, or the end of the segment is missing.
//   - If the cursor cannot be written, delivery goes on, and records come twice after a restart. Segments stay
//     meanwhile: a segment is removed only after a cursor behind it is durable in both slots.
//
// One process at a time uses a directory; see Inspect for other processes that want to look. The work of Open depends
// on the number of files, not on their size: of each log Open scans one segment, and one more for each segment without
// records at the end.
//
// # Moving records to another log
//
// Read the records from the first log, append them to the second with AppendExempt, and then mark them with Done in the
// first. AppendExempt returns once the records are durable. So they are always in at least one of the two logs,
// whenever the process ends or the power fails. After an end between the two steps they are in both logs: another move,
// or the delivery of both logs, delivers them twice, as the contract allows.
//
// # Files
//
// Every log is a directory. Its name is the log's name, in which every character but letters, digits, "_", "-" and "."
// is percent-encoded. It holds segments and the cursor. All integers are little-endian; the checksums are CRC-32C.
//
// A segment is named for the number of its first record, as 20 digits and ".log". It starts with a header:
//
//	magic u32 | version u32 | follows u64 | checksum u32 over the fields before it
//
// "follows" is the number behind the last record that was committed before the segment was made. The numbers from there
// up to the segment's first record belong to commits that failed: they are no loss. Then come records with consecutive
// numbers:
//
//	magic u32 | length u32 | number u64 | commit u32 | checksum u32 over length, number, commit and payload | payload
//
// "commit" is how many records of the same commit are before this one. A commit is a group of records that are written
// and synced together, always to one segment. Only after that are its records acknowledged, and the next commit
// written. A power loss may leave any part of the bytes that were not synced. So a hole with whole records behind it
// may be damage, or a torn write. It is damage if a record behind the hole belongs to a later commit than the first
// record in the hole, or if the cursor says that the hole was committed: then Read counts the hole as lost. Otherwise
// the hole is a torn write, and Open cuts the log off there.
//
// The version is 2. A segment of another version stays as it is, and stops Read: Read returns an error when it comes to
// that segment. Append makes another segment.
//
// The cursor file has two slots, each in a sector of its own. They are written in turn, and the valid slot with the
// greatest cursor counts:
//
//	cursor u64 | committed u64 | checksum u32 over both
//
// The cursor is the number of the first record that is not done. "committed" is the number behind the last record that
// was committed. It tells damage at the end of a log from a torn write. Damage is a loss; a torn write is none, because
// it was never acknowledged.
package spool
