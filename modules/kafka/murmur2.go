package kafka

import "encoding/binary"

// partitionOf returns the partition, of count partitions, that a key belongs to. Java's and librdkafka's clients choose
// the same one.
func partitionOf(key []byte, count int) int {
	return int(murmur2(key)&0x7fffffff) % count
}

// murmur2 is the hash by which Kafka's own client chooses a partition: MurmurHash2, 32 bits, with that client's seed.
func murmur2(data []byte) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
		r           = 24
	)
	h := seed ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data)
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(data[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
