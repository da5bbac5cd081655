// Package memory bounds what all requests of the process hold at once: a Budget is the bytes that there are, a Lease
// what one holder has of them, and Buffers hand out memory that counts against the budget for as long as it is in use.
package memory
