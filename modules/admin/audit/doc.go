// Package audit is the record of what operators change: who, when, what, the state before and after, and how it ended.
// It is a stream of its own, apart from the log of the service. modules/admin provides the Log; a module that lets
// operators change something calls Log.Begin before the change.
//
// The contract: a change has two lines of JSON, which have the same id. The first says what is to be done, and is on
// the disk before the change is made. If the line cannot be written, Begin returns an error, and the change must not be
// made. The second line says how the change ended. A change without a second line was under way when the process ended,
// or its first line came too late and it was refused: look at the thing itself.
//
// # Where it goes
//
// With admin.audit.file, the lines go to the end of that file, and each is synced to the disk. The directory must be
// one that no other user can write to. If the file is moved away or removed, as logrotate does, the next line begins a
// new file: no signal is needed. Without the setting, the lines go to standard error.
package audit
