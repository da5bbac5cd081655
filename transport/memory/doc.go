// Package memory bounds the bytes that all requests of the process hold at once. A Budget is all the bytes that there
// are, and a Lease is one holder's share of them. The budget can keep its last bytes for small holders. Buffers hand
// out memory that counts against the budget for as long as it is in use. What large holders give back counts against
// the bytes of other large holders until the garbage collector has come by.
package memory
