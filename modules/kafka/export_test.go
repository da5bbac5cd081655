package kafka

// MessageSize is what a message takes of the buffer beside its text.
const MessageSize = int(messageSize)
