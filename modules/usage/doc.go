// Package usage counts for each token, day and resource how its events have ended, so that an operator sees who sends
// what: GET /admin/usage and "capture usage" show it.
//
// The contract: in every row, whenever it is read, received == accepted + dropped + rejected + failed, to the event. A
// row belongs to a token, a day of UTC (the day on which the request arrived) and an events.Resource. The rows together
// hold every event that the ledger (events.Ledger) holds, as soon as the settlements of its batch have run, which is
// before the client is answered.
//
// What a node counts is its own: the usage of an installation is the sum over its nodes.
//
// # What is bounded
//
// At most usage.max_tokens tokens have rows of their own in memory. The others are counted in the row of the group
// "others". Strangers can send any number of tokens, so a new token gets a row, in the place of another, only if it
// has sent more requests lately than the other has sent that day. A token whose project a gate knows (Batch.Project)
// goes before all tokens that nobody knows. The counts of a token that loses its row move to the others, so that sums
// stay true; if the token gets a row again, the row begins anew, and its field "since" says when. Events of requests
// without a usable token are in the group "no_token".
//
// # What is kept
//
// Each day has a file in usage.dir, which is written anew while the day changes, every usage.save_every and at a stop.
// A kill loses what was counted since the last time. A day in which nobody sends has no file. The newest usage.days
// files are kept. Without a directory, or if the directory cannot be used, today and yesterday are kept in memory.
package usage
