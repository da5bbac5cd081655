// Package decode turns the bytes of a request into the JSON text that the client meant, whatever it wrapped it in: a
// form, the query, base64, lz-string, gzip, zstd, brotli, deflate, or several of them.
//
// Bytes decide, hints don't. Content-Type, Content-Encoding and the compression parameter are consulted only where the
// bytes leave it open (lz-string, brotli and deflate can't be told by their bytes); a hint that the bytes contradict is
// ignored.
//
// Two things are made right on the way, since they leave nothing in doubt: one byte order mark at the beginning of the
// text is left out, and surrogates that stand for themselves, which UTF-8 can't express, become the character that two
// of them mean, or U+FFFD, which is counted. lz-string has them, and the base64 of posthog-js 1.0.
//
// Memory is bounded three ways. No step yields more than the decoder's limit, however much its input would inflate to.
// Whatever is held, buffers and the larger tables alike, is reserved from a memory.Budget before it is made. And an
// output that outgrows a small buffer is measured before it gets a large one, so that a bomb costs time, but hardly any
// memory.
package decode
