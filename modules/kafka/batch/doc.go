// Package batch makes record batches of messages. A record batch is the unit that a producer sends, that Kafka stores,
// and that Kafka recognises again by its numbers. The package knows the record format, its compression and the sequence
// numbers. It knows neither connections nor the fate of a batch. It is pure: the same messages and the same Spec always
// give the same bytes.
//
// The batches are sarama's. sarama takes no encoded batch: it encodes a request, with all that is in it, when it sends
// the request. So sarama makes the bytes, from the records that this package has laid out.
package batch
