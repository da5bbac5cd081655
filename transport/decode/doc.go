// Package decode turns the bytes of a request into the JSON text that the client meant, whatever the client has wrapped
// it in: a form, the query, base64, a JSON string, lz-string, gzip, zstd, brotli, deflate, or several of them. A form
// may be urlencoded or multipart, and is one field of it: data.
//
// Bytes decide, hints don't. Content-Type, Content-Encoding and the compression parameter are consulted only where the
// bytes leave the encoding open: lz-string, brotli and bare deflate can't be told by their bytes, and neither can a
// charset.
// A hint that the bytes contradict is ignored.
//
// That holds for the charset of Content-Type, too. JSON is UTF-8 (RFC 8259), and many clients declare the charset of
// their platform without using it, so a text that is valid UTF-8 is read as that, whatever is declared: hardly any text
// in another charset is valid UTF-8 by chance. A text that is not is read by the declared charset, if the service knows
// it (those of the WHATWG's Encoding Standard). UTF-16 shows itself by its byte order mark or its zeros.
//
// Some faults are mended on the way, since their meaning is not in doubt. One byte order mark at the beginning of the
// text is left out. Surrogates that stand for themselves, which UTF-8 can't express, become the character that a pair
// of them means; a lone one becomes U+FFFD and is counted. Such surrogates come out of lz-string and out of the base64
// of posthog-js 1.0. Compressed bytes that a program has taken for characters of Latin-1 or Windows-1252 and written in
// UTF-8 become bytes again. What stands behind the last member of gzip is left out.
//
// What lies in what is bounded: four compressions, three JSON strings, two times base64, and one of every other form.
//
// Memory is bounded in three ways. No step yields more than the decoder's limit, however much its input would inflate
// to. Buffers, and the larger tables as well, are reserved from a memory.Budget before they are made. And an output
// that outgrows a small buffer is measured before it gets a large one, so that a bomb costs time, but hardly any
// memory.
package decode
