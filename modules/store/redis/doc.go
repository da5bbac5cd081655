// Package redis keeps the shared state in Redis: one server, a primary that Sentinels watch over, or a Cluster. It
// needs Redis 7.0 or later. docs/decisions/0025-shared-state-in-redis.md says why it is as it is.
//
// The keys, behind store.redis.prefix; all keys of a token are in one slot of a Cluster:
//
//	project:{TOKEN}          hash    a record, of the kind project; other kinds have keys like it
//	dedup:{TOKEN}:DIGEST     string  "1": done; else the owner that has reserved it, in 16 digits
//	quota:{TOKEN}:REST       hash    the counter quota:REST of a window: used, held, and n:NODE, the account of a node
//	quotas:{TOKEN}           zset    the token's counters of windows, each with when it can be forgotten
//	rate:{TOKEN}:REST        string  the counter rate:REST, by GCRA: a time, and for how long from then it is not full
//	probe:{...}              string  written to see whether the server takes writes
//
// Of a token, bytes that are not printable ASCII, braces, percent signs and blanks are written as %XX in keys. Changes
// of records are published on the channels changed:KIND.
//
// A round trip costs more than what it carries. So the calls that come while a round trip to a server is under way go
// together in the next one (lane), and take the ends of requests along (settlements). A call that finds nobody under
// way goes at once.
package redis
