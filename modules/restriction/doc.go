// Package restriction is the record of a rule of the operator's: which events of a project are dropped, moved to
// overflow, set aside, sent to another topic, or kept from persons. Operators write records through the admin API, by
// commands, or as hashes in Redis. All of these have the same fields, whose values are texts. The package reads, checks
// and writes them, so that a record means the same everywhere. modules/routing applies the rules.
//
// The contract: Parse reports every fault of a record, each with the field and what to do, as a *configs.FaultsError.
// What Parse has read, Rule.Fields writes so that Parse reads the same again. A record that Parse refuses is never used
// in part. docs/restrictions.md shows the fields to operators.
package restriction
