package testkit_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/testkit"
)

var update = flag.Bool("update", false, "write what the service does into the golden files")

// golden is one file of testdata/golden: requests, with the answers and messages that they must lead to. See the README
// beside the files.
type golden struct {
	About    string            `yaml:"about"`
	Set      map[string]string `yaml:"set,omitempty"`
	Steps    []step            `yaml:"steps"`
	Messages []string          `yaml:"messages"`
}

type step struct {
	Request goldenRequest `yaml:"request"`
	Answer  goldenAnswer  `yaml:"answer"`
}

type goldenRequest struct {
	Method  string            `yaml:"method,omitempty"`
	Path    string            `yaml:"path"`
	Headers map[string]string `yaml:"headers,omitempty"`
	Gzip    bool              `yaml:"gzip,omitempty"`
	Body    string            `yaml:"body,omitempty"`
	// Base64 is a body that is not text.
	Base64 string `yaml:"base64,omitempty"`
	// Repeat is the number of letters x that replace %REPEAT% in the body.
	Repeat int `yaml:"repeat,omitempty"`
}

type goldenAnswer struct {
	Status  int               `yaml:"status"`
	Headers map[string]string `yaml:"headers,omitempty"`
	Body    string            `yaml:"body,omitempty"`
}

// goldenHeaders are the headers of an answer that the protocol defines.
var goldenHeaders = []string{
	"Content-Type", "Retry-After", "PostHog-Request-Id", "Accept", "Accept-Encoding", "ETag", "Cache-Control", "Vary",
	"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Allow-Methods",
	"Access-Control-Allow-Headers",
	"Access-Control-Expose-Headers", "RateLimit", "RateLimit-Policy", "X-Capture-Limits",
}

// Every file below testdata/golden is a case: the requests, their answers, and all messages that are in Kafka
// afterwards. A folder is a section of the protocol's specification.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	// Cases with the same settings share a service.
	type group struct {
		set   map[string]string
		files []string
	}
	groups := map[string]*group{}
	for _, file := range files {
		set := readGolden(t, file).Set
		key := fmt.Sprint(set) // Sprint orders the keys
		if groups[key] == nil {
			groups[key] = &group{set: set}
		}
		groups[key].files = append(groups[key].files, file)
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		t.Run("set "+key, func(t *testing.T) {
			t.Parallel()
			// Cases send the same events to the same projects.
			options := []testkit.Option{testkit.Set("dedup.window", "0")}
			for name, value := range groups[key].set {
				options = append(options, testkit.Set(name, value))
			}
			var config kafka.Config
			service := testkit.Start(t, append(options, testkit.Populate(&config))...)
			// If the broker is not the service's own, the topic of a rule may hold messages of an earlier run.
			seen := map[string]bool{}
			for _, message := range service.Messages() {
				seen[place(message)] = true
			}
			for _, file := range groups[key].files {
				t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/golden/"), ".yaml"), func(t *testing.T) {
					runGolden(t, file, service, config.Topics, seen)
				})
			}
		})
	}
}

func readGolden(t *testing.T, file string) golden {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var g golden
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&g), file)
	return g
}

func runGolden(t *testing.T, file string, service *testkit.Service, topics produce.Topics, seen map[string]bool) {
	want := readGolden(t, file)
	got := want
	got.Steps = slices.Clone(want.Steps)
	var sent strings.Builder
	for i, step := range want.Steps {
		response := sendGolden(t, service, step.Request)
		sent.WriteString(step.Request.Body)
		if path, err := url.QueryUnescape(step.Request.Path); err == nil {
			sent.WriteString(path)
		}
		answer := goldenAnswer{Status: response.Status, Body: response.Body, Headers: map[string]string{}}
		for _, name := range goldenHeaders {
			if value := response.Header.Get(name); value != "" {
				answer.Headers[name] = untilReset.ReplaceAllString(value, "$1<seconds>")
			}
		}
		// A header that is the same in every answer is left out of the files.
		if answer.Headers["Vary"] == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers" {
			delete(answer.Headers, "Vary")
		}
		got.Steps[i].Answer = answer
	}
	// Warnings come a moment later than the answer. The file says how many to wait for, once it has been written.
	var messages []testkit.Message
	last := time.Now()
	service.Eventually("the messages of "+file, func() bool {
		before := len(messages)
		messages = unseen(service.Messages(), seen)
		if len(messages) > before {
			last = time.Now()
		}
		if *update {
			return time.Since(last) > settling
		}
		return len(messages) >= len(want.Messages)
	})
	got.Messages = goldenMessages(t, messages, topics, sent.String())
	for _, step := range want.Steps {
		if step.Request.Repeat > 0 {
			for i, line := range got.Messages {
				got.Messages[i] = strings.ReplaceAll(line, strings.Repeat("x", step.Request.Repeat), repeated)
			}
		}
	}
	for _, message := range messages {
		seen[place(message)] = true
	}
	if *update {
		var out bytes.Buffer
		encoder := yaml.NewEncoder(&out)
		encoder.SetIndent(2)
		require.NoError(t, encoder.Encode(got))
		require.NoError(t, os.WriteFile(file, out.Bytes(), 0o600))
		return
	}
	for i := range want.Steps {
		if want.Steps[i].Answer.Headers == nil {
			want.Steps[i].Answer.Headers = map[string]string{}
		}
		require.Equal(t, want.Steps[i].Answer, got.Steps[i].Answer, "%s: step %d", want.About, i+1)
	}
	require.Equal(t, want.Messages, got.Messages, want.About)
}

// untilReset finds how long a limit of the project lasts. It ends at a time of the clock.
var untilReset = regexp.MustCompile(`(;t=|, wait )[0-9]+`)

// repeated stands for the letters of a request's repeat, in the body and in the messages.
const repeated = "%REPEAT%"

func sendGolden(t *testing.T, service *testkit.Service, request goldenRequest) testkit.Response {
	method, body := request.Method, strings.ReplaceAll(request.Body, repeated, strings.Repeat("x", request.Repeat))
	if method == "" {
		method = "POST"
	}
	if request.Base64 != "" {
		require.Empty(t, body, "a request has a body or a base64")
		plain, err := base64.StdEncoding.DecodeString(request.Base64)
		require.NoError(t, err)
		body = string(plain)
	}
	if request.Gzip {
		var packed bytes.Buffer
		writer := gzip.NewWriter(&packed)
		_, err := writer.Write([]byte(body))
		require.NoError(t, err)
		require.NoError(t, writer.Close())
		body = packed.String()
	}
	var header []string
	for _, name := range slices.Sorted(maps.Keys(request.Headers)) {
		header = append(header, name, request.Headers[name])
	}
	return service.Request(method, request.Path, body, header...)
}

// settling is how long no message may come before a file is written.
const settling = 300 * time.Millisecond

func unseen(messages []testkit.Message, seen map[string]bool) []testkit.Message {
	return slices.DeleteFunc(messages, func(message testkit.Message) bool { return seen[place(message)] })
}

func place(message testkit.Message) string {
	return fmt.Sprint(message.Topic, "/", message.Partition, "/", message.Offset)
}

// goldenMessages writes each message as one line of JSON. A placeholder replaces every part that differs from run to
// run.
func goldenMessages(t *testing.T, messages []testkit.Message, topics produce.Topics, sent string) []string {
	lines := []string{}
	for _, message := range messages {
		var value map[string]any
		decoder := json.NewDecoder(bytes.NewReader(message.Value))
		decoder.UseNumber()
		require.NoError(t, decoder.Decode(&value))
		var data any
		decoder = json.NewDecoder(bytes.NewReader(message.Envelope.Data))
		decoder.UseNumber()
		require.NoError(t, decoder.Decode(&data), "%s", message.Envelope.Data)
		value["data"] = data
		var key any
		if message.Key != nil {
			key = string(message.Key)
		}
		if meant, aside := message.Headers["dlq_topic"]; aside {
			message.Headers["dlq_topic"] = topicKey(topics, meant)
		}
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		require.NoError(t, encoder.Encode(map[string]any{
			"topic": topicKey(topics, message.Topic), "key": key, "headers": message.Headers, "value": value,
		}))
		moment := time.Duration(0)
		if message.Envelope.Event == "$$client_ingestion_warning" {
			moment = warned
		}
		lines = append(lines, stable(strings.TrimSpace(out.String()), message.Envelope.Now, moment, sent))
	}
	slices.Sort(lines)
	return lines
}

// topicKey returns the key below kafka.topics that names the topic, or the topic itself if no key does.
func topicKey(topics produce.Topics, name string) string {
	value := reflect.ValueOf(topics)
	for i := range value.NumField() {
		if value.Field(i).Kind() == reflect.String && value.Field(i).String() == name {
			return value.Type().Field(i).Tag.Get("key")
		}
	}
	return name
}

var (
	anyUUID  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	anyTime  = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	anyMilli = regexp.MustCompile(`"timestamp":"(\d{13})"`)
)

// stable replaces the values that the service made up: a uuid by its version, a time by its distance to the service's
// now. It keeps values that were sent. A distance of up to moment counts as none. A uuid that is made of another one is
// the same in every run, so stable keeps it if the request had a uuid.
func stable(line string, now time.Time, moment time.Duration, sent string) string {
	line = anyUUID.ReplaceAllStringFunc(line, func(id string) string {
		parsed := uuid.MustParse(id)
		if strings.Contains(sent, id) || parsed.Version() == 5 && anyUUID.MatchString(sent) {
			return id
		}
		return fmt.Sprintf("<uuid v%d>", parsed.Version())
	})
	line = anyTime.ReplaceAllStringFunc(line, func(text string) string {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || strings.Contains(sent, text) || now.Sub(at).Abs() > 1000*time.Hour {
			return text
		}
		return relative(at, now, moment)
	})
	return anyMilli.ReplaceAllStringFunc(line, func(text string) string {
		ms, _ := strconv.ParseInt(anyMilli.FindStringSubmatch(text)[1], 10, 64)
		at := time.UnixMilli(ms)
		if now.Sub(at).Abs() > 1000*time.Hour {
			return text
		}
		return `"timestamp":"` + relative(at, now, moment) + ` in ms"`
	})
}

// warned is how long after its request a warning may be written, on the busiest of machines.
const warned = 10 * time.Minute

func relative(at, now time.Time, moment time.Duration) string {
	distance := at.Round(time.Millisecond).Sub(now.Round(time.Millisecond)).Round(10 * time.Millisecond)
	switch {
	case distance.Abs() <= moment:
		return "<now>"
	case distance > 0:
		return "<now+" + distance.String() + ">"
	default:
		return "<now" + distance.String() + ">"
	}
}
