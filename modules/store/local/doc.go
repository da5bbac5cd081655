// Package local is the store of a single node, in its process, with nothing installed. It keeps everything in memory.
package local
