// Package project is the record of a project: who may send with a token, and how much. Operators write records in files
// (auth.projects), as hashes in Redis, through the admin API and by commands. All of these have the same fields, whose
// values are texts. The package reads, checks and writes them, so that a record means the same everywhere.
//
// The contract: Parse reports every fault of a record, each with the field and what to do, as a *configs.FaultsError.
// What Parse has read, Record.Fields writes so that Parse reads the same again. A record that Parse refuses is never
// used in part. docs/projects.md shows the fields to operators.
package project
