// Package batch makes record batches of messages: the unit that a producer sends, that Kafka stores, and that it recognises
// again by its numbers. It knows the record format, its compression and the sequence numbers, and neither connections nor
// what becomes of a batch. It is pure: the same messages and the same Spec always give the same bytes.
//
// The batches are sarama's: sarama encodes a request with all that is in it when it is sent, and takes no encoded batch. So
// the bytes are made there, by sarama, of what this package has laid out.
package batch
