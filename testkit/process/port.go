package process

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
)

// marks are sockets of UDP at the ports that FreePort has returned. They stay open for as long as this program runs.
var (
	marking sync.Mutex
	marks   []net.PacketConn
)

// FreePort returns a port for a server of TCP on the loopback interface. Nobody listens there, and FreePort returns it
// to no other caller while this program runs, not even in another program: the port of UDP with the same number is the
// mark that it is taken. So the server may go away and come back. The range is below that of ephemeral ports, so that
// no outgoing connection takes the port meanwhile.
func FreePort() int {
	for {
		port := 10000 + rand.IntN(10000)
		address := "127.0.0.1:" + strconv.Itoa(port)
		mark, err := net.ListenPacket("udp", address)
		if err != nil {
			continue
		}
		// The port is not tried by listening: a program that is just being started would keep that socket open for a
		// moment after it is closed here, and the server would not get the port.
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			_ = mark.Close()
			continue
		}
		marking.Lock()
		defer marking.Unlock()
		marks = append(marks, mark)
		return port
	}
}
