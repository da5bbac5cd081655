package kafka

// Backoff is the pause before an attempt.
var Backoff = backoff
