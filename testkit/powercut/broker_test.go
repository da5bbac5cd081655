//go:build powercut && linux

package powercut

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/opencapture/capture/testkit/proof"
)

// partitions is how many partitions every topic of every broker has, so that an event's partition is the same in all of
// them.
const partitions = 3

// kafka is a broker in this process. It keeps everything in memory and never loses its power. It may be away. It
// remembers the time of each of its answers.
type kafka struct {
	cluster *kfake.Cluster
	// latency is how long the broker holds its answers back.
	latency time.Duration

	mu      sync.Mutex
	absent  bool
	links   map[*link]bool
	answers map[place][]answer
	fault   error
}

type place struct {
	topic     string
	partition int32
}

// answer records that the messages from an offset on have been acknowledged.
type answer struct {
	from int64
	at   time.Time
}

func newKafka(latency time.Duration) (*kafka, error) {
	k := &kafka{latency: latency, links: map[*link]bool{}, answers: map[place][]answer{}}
	var err error
	k.cluster, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(partitions), kfake.ListenFn(
		func(network, _ string) (net.Listener, error) {
			listener, err := net.Listen(network, "127.0.0.1:0")
			return gate{listener, k}, err
		}))
	return k, err
}

func (k *kafka) address() string { return k.cluster.ListenAddrs()[0] }

func (k *kafka) close() { k.cluster.Close() }

// leave makes the broker cut its connections and take no new ones.
func (k *kafka) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.absent = true
	for link := range k.links {
		_ = link.Close()
	}
}

// back ends the absence that leave has begun.
func (k *kafka) back() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.absent = false
}

// stored is a message in Kafka, with the time at which the broker acknowledged it. The service can't have known
// earlier.
type stored struct {
	proof.Message
	acked time.Time
}

// read returns all messages that the broker holds.
func (k *kafka) read() ([]stored, error) {
	var all []stored
	err := proof.Read([]string{k.address()}, "", topicWarnings, func(m proof.Message) {
		all = append(all, stored{Message: m, acked: k.acked(m)})
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		err = k.fault
	}
	return all, err
}

// topicWarnings is the end of the name of the topic for which the load sends no events.
const topicWarnings = "_warnings"

// acked returns when a message was acknowledged. An answer covers the messages up to the first one of the next answer.
func (k *kafka) acked(m proof.Message) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	best := answer{from: -1}
	for _, a := range k.answers[place{m.Topic, m.Partition}] {
		if a.from <= m.Offset && a.from > best.from {
			best = a
		}
	}
	return best.at
}

// gate takes connections for a broker.
type gate struct {
	net.Listener
	k *kafka
}

func (g gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g.k.mu.Lock()
		absent := g.k.absent
		l := &link{Conn: conn, k: g.k, versions: map[int32]int16{}}
		if !absent {
			g.k.links[l] = true
		}
		g.k.mu.Unlock()
		if !absent {
			return l, nil
		}
		_ = conn.Close()
	}
}

// link is a connection. It reads the requests and answers that pass.
type link struct {
	net.Conn
	k *kafka

	mu sync.Mutex
	// head is the beginning of the request that is being read. rest is how many bytes of the request are still to come.
	head []byte
	rest int
	// versions are the versions of the produce requests without an answer, by their correlation ids.
	versions map[int32]int16
}

const (
	headLength = 12 // length, key, version, correlation
	keyProduce = 0
)

// Read implements net.Conn.
func (l *link) Read(data []byte) (int, error) {
	n, err := l.Conn.Read(data)
	l.mu.Lock()
	defer l.mu.Unlock()
	for data := data[:n]; len(data) > 0; {
		if l.rest > 0 {
			skip := min(l.rest, len(data))
			l.rest, data = l.rest-skip, data[skip:]
			continue
		}
		take := min(headLength-len(l.head), len(data))
		l.head, data = append(l.head, data[:take]...), data[take:]
		if len(l.head) < headLength {
			continue
		}
		if binary.BigEndian.Uint16(l.head[4:]) == keyProduce {
			l.versions[int32(binary.BigEndian.Uint32(l.head[8:]))] = int16(binary.BigEndian.Uint16(l.head[6:]))
		}
		l.rest = int(binary.BigEndian.Uint32(l.head)) + 4 - headLength
		l.head = l.head[:0]
	}
	return n, err
}

// Write implements net.Conn. The broker writes an answer at once.
func (l *link) Write(data []byte) (int, error) {
	correlation := int32(binary.BigEndian.Uint32(data[4:]))
	l.mu.Lock()
	version, produced := l.versions[correlation]
	delete(l.versions, correlation)
	l.mu.Unlock()
	if produced {
		if l.k.latency > 0 {
			<-time.After(l.k.latency)
		}
		l.k.note(data, version)
	}
	return l.Conn.Write(data)
}

// note remembers which messages an answer acknowledges.
func (k *kafka) note(data []byte, version int16) {
	now := time.Now()
	response := kmsg.NewPtrProduceResponse()
	response.SetVersion(version)
	body := data[8:]
	if response.IsFlexible() {
		body = body[1:]
	}
	err := response.ReadFrom(body)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.fault = fmt.Errorf("an answer to a produce request: %w", err)
		return
	}
	for _, topic := range response.Topics {
		if topic.Topic == "" {
			k.fault = fmt.Errorf("an answer to a produce request of version %d does not name its topic", version)
		}
		for _, p := range topic.Partitions {
			if p.ErrorCode == 0 {
				at := place{topic.Topic, p.Partition}
				k.answers[at] = append(k.answers[at], answer{from: p.BaseOffset, at: now})
			}
		}
	}
}

// Close implements net.Conn.
func (l *link) Close() error {
	err := l.Conn.Close()
	go func() {
		l.k.mu.Lock()
		defer l.k.mu.Unlock()
		delete(l.k.links, l)
	}()
	return err
}
