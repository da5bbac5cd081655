package kafka

// MessageSize is what a message takes of the buffer beside its text.
const MessageSize = int(messageSize)

// Backoff is the pause before an attempt.
var Backoff = backoff
