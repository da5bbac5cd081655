package dedup

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/store"
)

var sent = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const aUUID = "0198c0de-0000-7000-8000-000000000001"

// plain is an event without a uuid that says everything else.
func plain() events.Event {
	return events.Event{
		UUID: uuid.New(), Name: "clicked", DistinctID: "me", Timestamp: time.Now(),
		Raw: events.Raw{
			Token: []byte(`"phc_a"`), DistinctID: []byte(`"me"`), Timestamp: []byte(`"2026-11-24T11:58:00Z"`),
			Offset: []byte(`5`), Properties: []byte(`{"x":1}`), Set: []byte(`{"a":1}`), SetOnce: []byte(`{"b":1}`),
		},
	}
}

func identified() events.Event {
	event := plain()
	event.UUID, event.ClientUUID = uuid.MustParse(aUUID), true
	return event
}

func recorded() events.Event {
	return events.Event{
		UUID: uuid.New(), Name: "$snapshot_items", DistinctID: "me", Lane: events.LaneRecordings, SessionID: "s",
		Recording: &events.Recording{
			WindowID: []byte(`"w"`),
			Items:    []events.Snapshot{{JSON: []byte(`{"type":1}`)}, {JSON: []byte(`{"type":2}`)}},
		},
	}
}

// digestOf returns the digest of an event in hexadecimal digits, or "" if it has none.
func digestOf(event events.Event, sentAt time.Time, triple bool) string {
	h := newHasher()
	d, _, ok := h.identify(&events.Batch{Token: "phc_a", SentAt: sentAt}, &event, triple)
	if !ok {
		return ""
	}
	return hex.EncodeToString(d[:])
}

// change returns the event with a change.
func change(event events.Event, with func(*events.Event)) events.Event {
	if event.Recording != nil {
		recording := *event.Recording
		recording.Items = append([]events.Snapshot(nil), recording.Items...)
		event.Recording = &recording
	}
	with(&event)
	return event
}

// Nodes of two releases share a store, and a node finds in it what it has put there before a restart. So the digests
// of a release must be those of the releases before it. If this test fails, give what is hashed a new kind.
func TestTheDigestsAreThoseOfEveryRelease(t *testing.T) {
	require.Equal(t, goldenUUID, digestOf(identified(), time.Time{}, false))
	require.Equal(t, goldenContent, digestOf(plain(), time.Time{}, false))
	require.Equal(t, goldenRecording, digestOf(recorded(), time.Time{}, false))
	require.Equal(t, goldenTriple, digestOf(plain(), time.Time{}, true))
	h := newHasher()
	d := h.repeated(store.Digest{1, 2, 3}, 7)
	require.Equal(t, goldenRepeated, hex.EncodeToString(d[:]))
}

func TestAResentEventHasTheDigestOfTheFirst(t *testing.T) {
	for name, event := range map[string]events.Event{
		"by uuid": identified(), "by content": plain(), "a recording": recorded(),
	} {
		first := digestOf(event, sent, false)
		require.NotEmpty(t, first, name)
		// A resent request says anew when it was sent, and the service makes uuids and corrects times anew.
		resent := change(event, func(e *events.Event) {
			e.Timestamp = e.Timestamp.Add(time.Second)
			if !e.ClientUUID {
				e.UUID = uuid.New()
			}
			e.Notes, e.Ref, e.Cookieless = events.NoteTimeUnread, 7, true
		})
		require.Equal(t, first, digestOf(resent, sent.Add(time.Minute), false), name)
	}
}

func TestEventsThatDifferAnywhereHaveOtherDigests(t *testing.T) {
	all := map[string]string{}
	add := func(name string, event events.Event) {
		t.Helper()
		d := digestOf(event, sent, false)
		require.NotEmpty(t, d, name)
		require.Empty(t, all[d], "%s is the same as %s", name, all[d])
		all[d] = name
	}
	add("plain", plain())
	for name, with := range map[string]func(*events.Event){
		"name":        func(e *events.Event) { e.Name = "click" },
		"distinct_id": func(e *events.Event) { e.Raw.DistinctID = []byte(`"you"`) },
		"a number":    func(e *events.Event) { e.Raw.DistinctID = []byte(`5`) },
		"no distinct": func(e *events.Event) { e.Raw.DistinctID = nil },
		"timestamp":   func(e *events.Event) { e.Raw.Timestamp = []byte(`"2026-11-24T11:58:01Z"`) },
		"offset":      func(e *events.Event) { e.Raw.Offset = []byte(`6`) },
		"no offset":   func(e *events.Event) { e.Raw.Offset = nil },
		"properties":  func(e *events.Event) { e.Raw.Properties = []byte(`{"x":2}`) },
		"set":         func(e *events.Event) { e.Raw.Set = []byte(`{"a":2}`) },
		"set_once":    func(e *events.Event) { e.Raw.SetOnce = []byte(`{"b":2}`) },
		"set exchanged": func(e *events.Event) {
			e.Raw.Set, e.Raw.SetOnce = e.Raw.SetOnce, e.Raw.Set
		},
		"heatmap":  func(e *events.Event) { e.Heatmap = []byte(`{"$heatmap_data":{}}`) },
		"heatmap2": func(e *events.Event) { e.Heatmap = []byte(`{"$heatmap_data":{"a":1}}`) },
		"moved on": func(e *events.Event) {
			e.Name, e.Raw.DistinctID = `clicked"`, []byte(`me"`)
		},
		"no time": func(e *events.Event) { e.Raw.Timestamp = nil },
	} {
		add(name, change(plain(), with))
	}
	add("uuid", identified())
	add("another uuid", change(identified(), func(e *events.Event) { e.UUID[15]++ }))
	add("recording", recorded())
	for name, with := range map[string]func(*events.Event){
		"session":  func(e *events.Event) { e.SessionID = "z" },
		"window":   func(e *events.Event) { e.Recording.WindowID = []byte(`"v"`) },
		"user":     func(e *events.Event) { e.DistinctID = "you" },
		"item":     func(e *events.Event) { e.Recording.Items[1].JSON = []byte(`{"type":3}`) },
		"order":    func(e *events.Event) { i := e.Recording.Items; i[0], i[1] = i[1], i[0] },
		"fewer":    func(e *events.Event) { e.Recording.Items = e.Recording.Items[:1] },
		"with id":  func(e *events.Event) { e.UUID, e.ClientUUID = uuid.MustParse(aUUID), true },
		"other id": func(e *events.Event) { e.UUID, e.ClientUUID = uuid.MustParse(aUUID), true; e.UUID[0]++ },
	} {
		add("recording: "+name, change(recorded(), with))
	}
}

// With a uuid, the client says what an event is: what else it says may change.
func TestAUUIDIsTheWholeIdentity(t *testing.T) {
	event := identified()
	other := events.Event{UUID: event.UUID, ClientUUID: true, Name: "other", Raw: events.Raw{Properties: []byte(`{}`)}}
	require.Equal(t, digestOf(event, sent, false), digestOf(other, sent, false))
}

// The service makes uuids for events without one. They must not count.
func TestAUUIDOfTheServiceIsNoIdentity(t *testing.T) {
	one, other := plain(), plain()
	require.NotEqual(t, one.UUID, other.UUID)
	require.Equal(t, digestOf(one, sent, false), digestOf(other, sent, false))
}

// Of an event without a uuid and a time of its own, a second copy may be a second event: somebody who counts sign-ups
// from a script sends nothing that would differ.
func TestAnEventThatNothingTellsApartHasNoIdentity(t *testing.T) {
	bare := change(plain(), func(e *events.Event) { e.Raw.Timestamp, e.Raw.Offset = nil, nil })
	require.Empty(t, digestOf(bare, time.Time{}, false))
	require.Empty(t, digestOf(change(bare, func(e *events.Event) { e.Raw.Offset = []byte("5") }), time.Time{}, false),
		"an offset is from the time of the request")
	require.Empty(t, digestOf(bare, time.Time{}, true))
	require.NotEmpty(t, digestOf(bare, sent, false), "the time of the request tells it apart")
	require.NotEmpty(t, digestOf(bare, sent, true))
	require.NotEqual(t, digestOf(bare, sent, false), digestOf(bare, sent.Add(time.Millisecond), false))
	require.NotEqual(t, digestOf(bare, sent, true), digestOf(bare, sent.Add(time.Millisecond), true))

	for _, properties := range []string{`{"$insert_id":null}`, `{"a":{"$insert_id":"b"}}`, `{"a":"$insert_id"}`} {
		named := change(bare, func(e *events.Event) { e.Raw.Properties = []byte(properties) })
		require.Empty(t, digestOf(named, time.Time{}, false), properties)
	}
	named := change(bare, func(e *events.Event) { e.Raw.Properties = []byte(`{"a":1,"$insert_id":"b"}`) })
	require.NotEmpty(t, digestOf(named, time.Time{}, false))
	require.Equal(t, digestOf(named, time.Time{}, false), digestOf(named, sent, false),
		"the time of the request is that of the attempt")

	empty := change(recorded(), func(e *events.Event) { e.Recording.Items = nil })
	require.Empty(t, digestOf(empty, sent, false))
	require.NotEmpty(t, digestOf(change(empty, func(e *events.Event) { e.ClientUUID = true }), sent, false))
}

func TestATripleIsUserNameAndTime(t *testing.T) {
	first := digestOf(plain(), sent, true)
	require.Equal(t, first, digestOf(identified(), sent, true), "whatever the uuid")
	require.Equal(t, first, digestOf(change(plain(), func(e *events.Event) {
		e.Raw.Properties, e.Raw.DistinctID = []byte(`{}`), nil
	}), sent, true))
	for name, with := range map[string]func(*events.Event){
		"user": func(e *events.Event) { e.DistinctID = "you" },
		"name": func(e *events.Event) { e.Name = "other" },
		"time": func(e *events.Event) { e.Raw.Timestamp = []byte(`"2026-11-24T11:58:01Z"`) },
		"cut":  func(e *events.Event) { e.DistinctID, e.Name = "mecl", "icked" },
	} {
		require.NotEqual(t, first, digestOf(change(plain(), with), sent, true), name)
	}
	require.Equal(t, digestOf(recorded(), sent, false), digestOf(recorded(), sent, true),
		"the triple would make one of all parts of a recording")
	log := change(identified(), func(e *events.Event) { e.Lane = events.LaneLogs })
	require.Equal(t, digestOf(log, sent, false), digestOf(log, sent, true), "and one of the logs of one moment")
}

// Whatever the fields are, two events have the same digest only if all fields are the same.
func TestNoTwoContentsShareADigest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		field := rapid.SampledFrom([]string{
			"", `"`, `""`, `"a"`, `{}`, `{"a":1}`, "a", "aa", "\x00", strings.Repeat("a", 300),
		})
		draw := func(label string) (events.Event, string) {
			var event events.Event
			var all []string
			text := func(name string) []byte {
				value := field.Draw(t, label+name)
				all = append(all, value)
				return []byte(value)
			}
			event.Name = string(text("name"))
			event.Raw = events.Raw{
				DistinctID: text("id"), Timestamp: text("time"), Offset: text("offset"), Properties: text("properties"),
				Set: text("set"), SetOnce: text("set_once"),
			}
			event.Heatmap = text("heatmap")
			return event, fmt.Sprintf("%q", all)
		}
		one, oneText := draw("one ")
		other, otherText := draw("other ")
		require.Equal(t, oneText == otherText, digestOf(one, sent, false) == digestOf(other, sent, false))
	})
}

func TestATableFindsEveryDigestOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.IntRange(0, 200), 0, 500).Draw(t, "values")
		var table table
		table.reset(len(values))
		known := map[store.Digest]int{}
		var digests []store.Digest
		for _, value := range values {
			d := store.Digest{0: byte(value), 8: byte(value % 3)}
			index, found := table.find(d, digests)
			want, there := known[d]
			require.Equal(t, there, found)
			if !found {
				want = len(digests)
				known[d] = want
				digests = append(digests, d)
			}
			require.Equal(t, want, index)
		}
	})
}

// The digests of a request that somebody has made to be slow must cost what others cost: no digest is compared with
// many others.
func TestManyEqualEventsCostWhatOthersCost(t *testing.T) {
	w := &work{hasher: newHasher()}
	batch := &events.Batch{Token: "phc_a", Events: make([]events.Event, 20_000)}
	for i := range batch.Events {
		batch.Events[i] = plain()
	}
	require.Zero(t, w.identify(batch, false))
	require.Len(t, w.digests, len(batch.Events), "equal events of a request are told apart")
	seen := map[store.Digest]bool{}
	for i, d := range w.digests {
		require.Equal(t, uint32(i+1), batch.Events[i].Identity)
		seen[d] = true
	}
	require.Len(t, seen, len(batch.Events))
}

func TestIdentifyingCostsNoAllocation(t *testing.T) {
	for name, event := range map[string]events.Event{
		"uuid": identified(), "content": plain(), "recording": recorded(),
		"insert id": change(plain(), func(e *events.Event) {
			e.Raw.Timestamp, e.Raw.Properties = nil, []byte(`{"a":[1,2],"$insert_id":"b"}`)
		}),
	} {
		w := &work{hasher: newHasher()}
		batch := &events.Batch{Token: "phc_a", Events: make([]events.Event, 50)}
		for i := range batch.Events {
			batch.Events[i] = event
		}
		w.identify(batch, false)
		require.Zero(t, testing.AllocsPerRun(20, func() { w.identify(batch, false) }), name)
		require.Zero(t, testing.AllocsPerRun(20, func() { w.identify(batch, true) }), name)
	}
}

func BenchmarkIdentify(b *testing.B) {
	large := change(plain(), func(e *events.Event) {
		e.Raw.Properties = []byte(`{"x":"` + strings.Repeat("y", 1000) + `"}`)
	})
	for name, event := range map[string]events.Event{"uuid": identified(), "content of 1 KB": large} {
		b.Run(name, func(b *testing.B) {
			w := &work{hasher: newHasher()}
			batch := &events.Batch{Token: "phc_a", Events: make([]events.Event, 50)}
			for i := range batch.Events {
				batch.Events[i] = event
				batch.Events[i].UUID[0], batch.Events[i].Name = byte(i), strconv.Itoa(i)
			}
			b.ReportAllocs()
			for b.Loop() {
				w.identify(batch, false)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/event")
		})
	}
}

const (
	goldenUUID      = "57d9f8f0d2db139c52234b56bc617edb"
	goldenContent   = "ecd4801e89467accfa9538d8d035547a"
	goldenRecording = "5a7db324eb1f7374e6a295bf3837dd35"
	goldenTriple    = "b606fc40a9e9407136e0278c99b15008"
	goldenRepeated  = "2c8eb68db42deaaf9cf2086c924a360f"
)

// docs/deduplication.md says how much memory an event takes while it is handled.
func TestWhatAnEventTakesWhileItIsHandled(t *testing.T) {
	const n = 50
	batch := &events.Batch{Token: "phc_a"}
	for range n {
		event := plain()
		event.ClientUUID = true
		batch.Events = append(batch.Events, event)
	}
	w := &work{hasher: newHasher()}
	require.Zero(t, w.identify(batch, false))
	w.prepare()
	for i := range w.claims {
		w.claims[i] = store.Reserved
	}
	w.judge(batch)
	w.reserved()
	digests, numbers, bytes := cap(w.digests)+cap(w.again), cap(w.counts)+cap(w.table.slots), cap(w.claims)+cap(w.ends)
	takes := (len(store.Digest{})*digests + 4*numbers + bytes) / n
	require.InDelta(t, 55, takes, 10)
}
