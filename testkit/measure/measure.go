// Package measure puts a load on a running service and tells how much CPU time the service takes for it: for
// testkit/cpu and testkit/benchstate.
package measure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/panics"
)

// Load sends so many requests over so many connections, and returns when the last is answered. Each has to be answered
// 200 by Kafka. next makes a request; it is called on several goroutines.
func Load(connections, requests int, next func(context.Context) (*http.Request, error)) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	var left atomic.Int64
	left.Store(int64(requests))
	senders := panics.NewGroup(zap.NewNop())
	faults := make([]error, connections)
	for i := range connections {
		senders.Go("a sender", func() {
			for left.Add(-1) >= 0 && faults[i] == nil {
				faults[i] = send(ctx, client, next)
			}
		})
	}
	senders.Wait()
	return errors.Join(faults...)
}

func send(ctx context.Context, client *http.Client, next func(context.Context) (*http.Request, error)) error {
	request, err := next(ctx)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it was read whole
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if ack := response.Header.Get("X-Capture-Ack"); response.StatusCode != http.StatusOK || ack != "kafka" {
		return fmt.Errorf("answered %d %s %q, not 200 by Kafka", response.StatusCode, ack, body)
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
