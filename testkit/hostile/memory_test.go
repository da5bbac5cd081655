//go:build hostile && linux

package hostile

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"
	"time"
)

// budget is the service's budget in the attacks on its memory, and beside is what the process may take besides.
const (
	budget = 64 << 20
	beside = 150 << 20
)

// The limits of the service in the attacks on its memory. They fit into the budget.
var narrow = []string{
	fmt.Sprint("CAPTURE_TRANSPORT__MAX_IN_FLIGHT=", budget),
	"CAPTURE_TRANSPORT__MAX_BODY=8MiB", "CAPTURE_TRANSPORT__MAX_DECODED=32MiB",
	"CAPTURE_TRANSPORT__POSTHOG__MAX_RECORDING=16MiB",
}

// Whatever comes, the process holds no more than its budget says. What there is no room for is refused, and the clients
// are asked to send it again.
func TestMemoryIsOneBudget(t *testing.T) {
	for _, a := range memoryAttacks {
		t.Run(a.name, func(t *testing.T) {
			siege(t, start(t, narrow...), a, 3*time.Second, bounds{memory: budget + beside, patience: 10 * time.Second})
		})
	}
}

const isJSON, isGzip = "Content-Type: application/json", "Content-Encoding: gzip"

var memoryAttacks = []attack{
	{name: "tiny-events", attackers: 32, answers: []int{200, 400, 413, 503}, message: func() message {
		return post("/batch/", repeated(`{"api_key":"phc_x","batch":[`, `{}`, 300_000, `]}`), isJSON)
	}},
	{name: "tiny-events-gzip", attackers: 64, answers: []int{200, 400, 413, 503}, message: func() message {
		return post("/batch/", zip(repeated(`{"api_key":"phc_x","batch":[`, `{}`, 10_000_000, `]}`)), isJSON, isGzip)
	}},
}

// repeated returns a text with n elements, separated by commas.
func repeated(before, element string, n int, after string) []byte {
	var text bytes.Buffer
	text.WriteString(before)
	text.WriteString(strings.Repeat(element+",", n-1))
	text.WriteString(element)
	text.WriteString(after)
	return text.Bytes()
}

func zip(text []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(text)
	_ = w.Close()
	return out.Bytes()
}
