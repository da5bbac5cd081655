// Package api is what the operators' endpoints have in common by which programs look at and change what the service
// keeps: how a request is read, how errors look, how two operators do not overwrite each other's work, and that every
// change is in the audit log. A module makes an API and gets an endpoint.Endpoint from each Operation.
//
//   - Bodies are JSON. An unknown field is refused, with the nearest known one, and so is an unknown parameter of the
//     query. Nothing is half applied.
//   - Errors are problems of RFC 9457 (application/problem+json). The type is "urn:capture:problem:" and a word that
//     programs may rely on; detail says what to do.
//   - A record has an ETag, the digest of its content. A change needs If-Match with the ETag of what the client has
//     seen, or If-None-Match: * to make something new. Without either the answer is 428, so that nobody overwrites by
//     accident; If-Match: * overwrites on purpose. If the record has changed meanwhile, the answer is 412.
//   - Lists come in pages: limit, and after with the word "next" of the page before.
//   - A change that the audit log does not take is refused with 503.
package api
