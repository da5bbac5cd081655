// Package decode turns the bytes of a request into the JSON text that the client meant, whatever the client has wrapped
// it in: a form, the query, base64, lz-string, gzip, zstd, brotli, deflate, or several of them.
//
// Bytes decide, hints don't. Content-Type, Content-Encoding and the compression parameter are consulted only where the
// bytes leave the encoding open: lz-string, brotli and deflate can't be told by their bytes. A hint that the bytes
// contradict is ignored.
//
// Two faults are mended on the way, since their meaning is not in doubt. One byte order mark at the beginning of the
// text is left out. Surrogates that stand for themselves, which UTF-8 can't express, become the character that a pair
// of them means; a lone one becomes U+FFFD and is counted. Such surrogates come out of lz-string and out of the base64
// of posthog-js 1.0.
//
// Memory is bounded in three ways. No step yields more than the decoder's limit, however much its input would inflate
// to. Buffers, and the larger tables as well, are reserved from a memory.Budget before they are made. And an output
// that outgrows a small buffer is measured before it gets a large one, so that a bomb costs time, but hardly any
// memory.
package decode
