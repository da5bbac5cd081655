//go:build state && linux

package state

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/opencapture/capture/testkit/proof"
)

// broker is a Kafka inside this process, which can go away: it then closes every connection on which a client wants to
// write, and has not taken what the client has sent.
type broker struct {
	*kfake.Cluster

	away atomic.Bool
}

var errAway = errors.New("kafka is away")

func startBroker() (*broker, error) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		return nil, err
	}
	b := &broker{Cluster: cluster}
	b.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.KeepControl()
		if b.away.Load() {
			return nil, errAway, true
		}
		return nil, nil, false
	})
	return b, nil
}

// topic is the beginning of all topics' names.
const topic = "state."

// environ tells a node where Kafka is.
func (b *broker) environ() []string {
	environ := []string{"CAPTURE_KAFKA__BROKERS=" + strings.Join(b.ListenAddrs(), ",")}
	for _, name := range []string{"EVENTS", "EXCEPTIONS", "RECORDINGS", "HISTORICAL", "OVERFLOW", "RECORDINGS_OVERFLOW",
		"HEATMAPS", "AI", "LOGS", "DLQ", "CLIENT_WARNINGS"} {
		environ = append(environ, "CAPTURE_KAFKA__TOPICS__"+name+"="+topic+strings.ToLower(name))
	}
	return environ
}

// copies returns how many copies of each event there are.
func (b *broker) copies() (map[uuid.UUID]int, error) {
	copies := map[uuid.UUID]int{}
	var fault error
	err := proof.Read(b.ListenAddrs(), topic, "client_warnings", func(m proof.Message) {
		id, err := uuid.ParseBytes(bytes.TrimSpace(m.ID))
		if err != nil {
			fault = fmt.Errorf("a message of %s has the uuid %q", m.Topic, m.ID)
			return
		}
		copies[id]++
	})
	return copies, errors.Join(err, fault)
}
