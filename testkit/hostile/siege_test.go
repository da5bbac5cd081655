//go:build hostile && linux

package hostile

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/proof"
)

// message is what an attacker sends on a connection: a request with its head, as bytes.
type message struct {
	method, target string
	header         http.Header
	body           []byte
}

// post returns a POST request of a body, whose headers are given as "Name: value".
func post(target string, body []byte, headers ...string) message {
	m := message{method: http.MethodPost, target: target, header: http.Header{}, body: body}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		m.header.Add(name, value)
	}
	return m
}

// attack is a way to hurt a service. Its attackers are as many connections, each of which sends the message, waits for
// the answer, and begins anew until the attack is over.
type attack struct {
	name      string
	attackers int
	message   func() message
	// slow is set if the attackers read no more than the head of an answer for as long as the attack lasts.
	slow bool
	// answers are the statuses that the service may answer with.
	answers []int
	// until, if set, reports whether the attack has lasted long enough for the test to tell.
	until func() bool
}

// bounds is what must hold while a service is attacked.
type bounds struct {
	memory int64 // the most resident memory, in bytes
}

// good is the load of the client that means well: a batch of ten events every tenth of a second.
var good = proof.Shape{Workers: 2, Keys: 2, PerKey: 5, Pad: 150}

const goodRate = 100

const (
	// goodBatches is how many batches of the good client are acknowledged at least while an attack lasts. This is what
	// tells that the client is served: an attack of seconds ends by itself before a client loses its patience.
	goodBatches = 4
	// longest is within how long 99 % of the good client's batches must be acknowledged, with all attempts. On a
	// machine that has nothing else to do it takes a second at most.
	longest = 30 * time.Second
	// siegePatience is how long an attack lasts at most.
	siegePatience = 2 * time.Minute
)

// siege carries out an attack for a while, or longer on a slow machine, and prints its line.
func siege(t *testing.T, service *process.Service, a attack, during time.Duration, within bounds) {
	m := a.message()
	besiege(t, service, a, during, within, func(ctx context.Context, address string) int {
		return assault(ctx, address, m, a.slow)
	})
}

// besiege is siege for attackers that do something else than to send the message of the attack. Each attacker calls
// strike again and again, with the address of the service; strike returns the status of an answer. The attack lasts
// until the good client has been served often enough for a verdict.
func besiege(
	t *testing.T, service *process.Service, a attack, during time.Duration, within bounds,
	strike func(ctx context.Context, address string) int,
) {
	target, err := url.Parse(service.URL)
	if err != nil {
		t.Fatal(err)
	}
	load := proof.StartLoad(service.URL, good, goodRate)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	count := answers{}
	var attackers sync.WaitGroup
	for range a.attackers {
		attackers.Go(func() {
			for ctx.Err() == nil {
				count.add(strike(ctx, target.Host))
			}
		})
	}
	<-time.After(during)
	late := process.Poll(siegePatience, 10*time.Millisecond, func() (bool, error) {
		return load.Acked() >= int64(goodBatches*good.Size()) && (a.until == nil || a.until()), service.Ended()
	})
	cancel()
	attackers.Wait()
	history := load.Stop()

	peak, err := service.Memory(process.MaxResident)
	if err != nil {
		t.Fatalf("%v: %v", err, service.Ended())
	}
	p99 := proof.P99(history)
	fmt.Printf("hostile/%-22s sent=%d answers=%s peak=%dMiB good=%d refused=%d unanswered=%d p99=%s\n", a.name,
		count.sum(), &count, peak>>20, history.Acked()/good.Size(), history.Refused, history.Unanswered,
		proof.Short(p99))
	assert.LessOrEqual(t, peak>>20, within.memory>>20, "the service takes too much memory, in MiB")
	for _, status := range count.statuses() {
		assert.Contains(t, append(a.answers, unfinished), status, "the status of an answer")
	}
	if late != nil {
		t.Errorf("the good client is not served, or the attack has not come to what it is about: %v", late)
	}
	assert.Zero(t, history.Unanswered, "the good client is answered")
	// Each of the client's workers may meet a full service now and then, and gets through when it comes again.
	assert.LessOrEqual(t, history.Refused, good.Workers+history.Acked()/good.Size()/4, "the good client is refused")
	assert.LessOrEqual(t, p99, longest, "the good client is served in time")
}

// unfinished stands for the status of an answer that had not come when the attack was over.
const unfinished = 0

// answers counts answers by their status.
type answers struct {
	mu    sync.Mutex
	count map[int]int
}

func (a *answers) add(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count == nil {
		a.count = map[int]int{}
	}
	a.count[status]++
}

func (a *answers) statuses() []int { return slices.Sorted(maps.Keys(a.count)) }

func (a *answers) sum() (n int) {
	for _, count := range a.count {
		n += count
	}
	return n
}

// String returns the counts, as 200:96,503:316.
func (a *answers) String() string {
	var texts []string
	for _, status := range a.statuses() {
		texts = append(texts, fmt.Sprintf("%d:%d", status, a.count[status]))
	}
	return strings.Join(texts, ",")
}

// pause is how long an attacker waits after its connection was refused or cut, so that it does not only make work for
// the test's own machine.
const pause = 10 * time.Millisecond

// assault opens a connection, sends a message and reads the answer, whose status it returns.
func assault(ctx context.Context, address string, m message, slow bool) (status int) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		<-time.After(pause)
		return unfinished
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	if tcp, ok := conn.(*net.TCPConn); ok && slow {
		// What the kernel takes of the answer is no burden on the service.
		_ = tcp.SetReadBuffer(4 << 10)
	}
	request := &http.Request{
		Method: m.method, Host: address, Header: m.header, ContentLength: int64(len(m.body)),
		Body: io.NopCloser(strings.NewReader("")), Close: true,
	}
	if request.URL, err = url.ParseRequestURI(m.target); err != nil {
		panic(err) // Only a malformed attack.
	}
	request.URL.Host = address
	if len(m.body) > 0 {
		request.Body = io.NopCloser(bytes.NewReader(m.body))
	}
	// A service that refuses a request may answer before it has read the whole of it.
	written := make(chan struct{})
	go func() {
		defer close(written)
		_ = request.Write(conn)
	}()
	defer func() {
		_ = conn.Close()
		<-written
	}()
	response, err := http.ReadResponse(bufio.NewReaderSize(conn, 512), request)
	if err != nil {
		<-time.After(pause)
		return unfinished
	}
	defer func() { _ = response.Body.Close() }()
	if slow {
		<-ctx.Done()
	}
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}
