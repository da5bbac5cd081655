// Package measure puts a load on a running service and tells how much CPU time the service takes for it: for
// testkit/cpu and testkit/benchstate.
package measure

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

// Post returns the bytes of a request. headers are names and values by turns.
func Post(path string, body []byte, headers ...string) []byte {
	var request bytes.Buffer
	fmt.Fprintf(&request, "POST %s HTTP/1.1\r\nHost: capture\r\nContent-Length: %d\r\n", path, len(body))
	for header := range slices.Chunk(headers, 2) {
		fmt.Fprintf(&request, "%s\r\n", strings.Join(header, ": "))
	}
	request.WriteString("\r\n")
	request.Write(body)
	return request.Bytes()
}

// Load sends the requests to the service at the URL, over so many connections, and returns when the last is answered.
// rate is how many it sends in a second; with 0 it sends each as soon as a connection is free. Each has to be answered
// 200 by Kafka. The requests are bytes, made before, and so take little time of a machine that the service is to have
// for itself.
func Load(url string, connections int, rate float64, requests [][]byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var next atomic.Int64
	began := time.Now()
	due := func(n int64) time.Time {
		if rate == 0 {
			return began
		}
		return began.Add(time.Duration(float64(n) / rate * float64(time.Second)))
	}
	senders := panics.NewGroup(zap.NewNop())
	faults := make([]error, connections)
	for i := range connections {
		senders.Go("a sender", func() {
			faults[i] = send(ctx, strings.TrimPrefix(url, "http://"), func() []byte {
				n := next.Add(1) - 1
				if n >= int64(len(requests)) {
					return nil
				}
				time.Sleep(time.Until(due(n)))
				return requests[n]
			})
		})
	}
	senders.Wait()
	return errors.Join(faults...)
}

// send sends what next returns over one connection, until that is nil.
func send(ctx context.Context, addr string, next func() []byte) (err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	answers := bufio.NewReader(conn)
	for request := next(); request != nil; request = next() {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			return err
		}
		if ack := response.Header.Get("X-Capture-Ack"); response.StatusCode != http.StatusOK || ack != "kafka" {
			return fmt.Errorf("answered %d %s %q, not 200 by Kafka", response.StatusCode, ack, body)
		}
	}
	return nil
}

// CPUTime returns the CPU time that a process has used. Linux tells it in hundredths of a second.
func CPUTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field, the name, may hold any characters, but it ends with the last parenthesis.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	total := time.Duration(0)
	for _, field := range fields[11:13] { // utime, stime
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ticks) * 10 * time.Millisecond
	}
	return total, nil
}
