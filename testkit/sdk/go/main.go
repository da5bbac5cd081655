// Driver of posthog-go. It is a module of its own, so that the SDK is none of the service's dependencies; go.mod and
// v1.5.2.mod each pin a version of the SDK.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/posthog/posthog-go"
)

var users = []string{"ann", "bob@example.com", "zoë 漢", "dan"}

// driver is a client with what it was told. Batches are sent side by side, so that only one may be under
// way if their events are to keep their order: the client sends when a batch is full, and the driver then
// waits for its acknowledgement.
type driver struct {
	client posthog.Client
	ids    int
	// batch is how many events make a batch, and safe takes a value for each one that was acknowledged.
	batch int
	safe  chan struct{}
}

// Success implements posthog.Callback.
func (d *driver) Success(posthog.APIMessage) { d.safe <- struct{}{} }

// Failure implements posthog.Callback.
func (d *driver) Failure(_ posthog.APIMessage, err error) { log.Fatalf("an event is lost: %v", err) }

func main() {
	log.SetFlags(0)
	scenario := os.Getenv("CAPTURE_SCENARIO")
	d := &driver{batch: 15, safe: make(chan struct{}, 1000)}
	if scenario != "basic" {
		d.batch = 10
	}
	mode, compression, _ := strings.Cut(os.Getenv("CAPTURE_MODE"), "+")
	config := posthog.Config{
		Endpoint:  os.Getenv("CAPTURE_URL"),
		BatchSize: d.batch,
		Interval:  time.Hour,
		Callback:  d,
	}
	if scenario == "basic" {
		config.PersonalApiKey = "phx_e2e"
	}
	check(configure(&config, mode, compression))
	client, err := posthog.NewWithConfig(os.Getenv("CAPTURE_TOKEN"), config)
	check(err)
	d.client = client
	switch scenario {
	case "basic":
		d.basic()
	case "retry", "dropped":
		d.retry()
	default:
		log.Fatalf("no scenario is called %q", scenario)
	}
	check(client.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func announce(line any) {
	text, err := json.Marshal(line)
	check(err)
	fmt.Println(string(text))
}

type line struct {
	User  string `json:"user"`
	Event string `json:"event"`
	ID    string `json:"id"`
}

// tell announces an event and adds to the properties the one that tells it apart.
func (d *driver) tell(user, event string, properties posthog.Properties) posthog.Properties {
	d.ids++
	id := strconv.Itoa(d.ids)
	announce(line{user, event, id})
	return properties.Set("e2e_id", id)
}

func (d *driver) enqueue(message posthog.Message) { check(d.client.Enqueue(message)) }

func (d *driver) capture(user, event string, properties posthog.Properties) {
	d.enqueue(posthog.Capture{DistinctId: user, Event: event, Properties: d.tell(user, event, properties)})
}

// await waits until a batch is acknowledged.
func (d *driver) await() {
	for range d.batch {
		<-d.safe
	}
}

// varied returns properties that are different in kind from one event to the next.
func varied(n int) posthog.Properties {
	kinds := []posthog.Properties{
		{"text": "plain", "empty": "", "number": n, "negative": -0.5, "large": uint64(1<<64 - 1), "nothing": nil},
		{"greeting": "Grüße aus Zürich", "han": "漢字かな", "rtl": "שלום", "emoji": "👩‍👩‍👧‍👦🇨🇭", "line": "a\nb\tc\u2028d"},
		{"nested": map[string]any{"a": map[string]any{"b": []any{1, "two", struct{ Three []int }{}}}},
			"list": []any{[]any{}, nil, true}},
		{"when": time.Unix(0, 1), "duration": time.Second, "bytes": []byte{0, 255}},
		{"cut": "👍"[:2], "escapes": "\"\\/\b\f\r\u0001", "html": "<script>&amp;</script>"},
	}
	return kinds[n%len(kinds)]
}

func (d *driver) basic() {
	for n := range 20 {
		for _, user := range users[:3] {
			d.capture(user, fmt.Sprintf("basic %d", n%4), varied(n))
		}
		if n%5 == 4 {
			d.await()
		}
	}
	// What follows is less than a batch, which closing the client sends.
	ann, bob, zoe := users[0], users[1], users[2]
	d.enqueue(posthog.Identify{
		DistinctId: ann, Properties: d.tell(ann, "$identify", posthog.Properties{"plan": "free"}),
	})
	announce(line{User: ann, Event: "$create_alias"})
	d.enqueue(posthog.Alias{DistinctId: ann, Alias: "ann-before-login"})
	// The SDK makes the user from the group, whoever is named here.
	d.enqueue(posthog.GroupIdentify{
		Type: "company", Key: "acme",
		Properties: d.tell("$company_acme", "$groupidentify", posthog.Properties{"employees": 11}),
	})
	d.enqueue(posthog.Capture{
		DistinctId: bob, Event: "grouped", Groups: posthog.NewGroups().Set("company", "acme"),
		Properties: d.tell(bob, "grouped", posthog.Properties{}),
	})
	d.enqueue(posthog.Capture{
		DistinctId: bob, Event: "past", Timestamp: time.Date(2024, 2, 29, 23, 59, 59, 999999999, time.UTC),
		Properties: d.tell(bob, "past", posthog.Properties{}),
	})
	d.enqueue(newException(bob, d.tell(bob, "$exception", posthog.Properties{})))
	d.capture(zoe, "$ai_generation", posthog.Properties{
		"$ai_model": "some-model", "$ai_provider": "some-provider", "$ai_trace_id": "trace",
	})
	for key, ask := range map[string]func(posthog.FeatureFlagPayload) (any, error){
		"no-such-flag": d.client.IsFeatureEnabled, "no-other-flag": d.client.GetFeatureFlag,
	} {
		value, err := ask(posthog.FeatureFlagPayload{Key: key, DistinctId: ann})
		check(err)
		if value != nil && value != false {
			log.Fatalf("a flag that does not exist is %v", value)
		}
	}
	announce(map[string]any{"auto": "$feature_flag_called", "min": 1})
}

func (d *driver) retry() {
	for n := range 40 {
		d.capture(users[n%4], "retry", varied(n))
		if n%10 == 9 {
			d.await()
		}
	}
}
