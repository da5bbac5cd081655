package process

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// given holds the ports that FreePort has returned.
var given sync.Map

// FreePort returns a port of the loopback interface that nobody listens on and that it has not returned before. The
// range is below that of ephemeral ports, so that no outgoing connection takes the port while its owner is down.
func FreePort() int {
	for {
		port := 10000 + rand.IntN(10000)
		listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		_ = listener.Close()
		if _, taken := given.LoadOrStore(port, true); !taken {
			return port
		}
	}
}
