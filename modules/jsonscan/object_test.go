package jsonscan

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestMembersFindsWhatAnObjectHolds(t *testing.T) {
	var found []string
	m := MembersOf([]byte(` {"a" : 1, "\u0062":[{"c":2}] ,"c":"}","a":null}  `))
	for m.Next() {
		found = append(found, string(m.Key)+"="+string(m.Value))
	}
	require.NoError(t, m.Err())
	require.Equal(t, []string{"a=1", `b=[{"c":2}]`, `c="}"`, "a=null"}, found)
}

func TestMembersSaysWhereATextIsNoObject(t *testing.T) {
	for text, want := range map[string]string{
		``:              "unexpected end of JSON at byte 0",
		`[]`:            "expected an object at byte 0",
		`{`:             "unexpected end of JSON at byte 1",
		`{"a"`:          "unexpected end of JSON at byte 4",
		`{"a":`:         "unexpected end of JSON at byte 5",
		`{"a":1`:        "unexpected end of JSON at byte 6",
		`{"a":1,}`:      "expected a string as key at byte 7",
		`{"a":1 "b":2}`: "expected , or } in object at byte 7",
		`{"a":NaN}`:     "NaN or Infinity at byte 5",
		`{} {}`:         "unexpected text after the JSON value at byte 3",
	} {
		m := MembersOf([]byte(text))
		members := 0
		for m.Next() {
			members++
		}
		require.LessOrEqual(t, members, 1, text)
		require.EqualError(t, m.Err(), want, text)
		require.False(t, m.Next(), text)
	}
}

func TestGetReadsOneProperty(t *testing.T) {
	const object = ` {"a" : 1, "\u0062":[{"a":2}] ,"c":{"a":"}"},"d":null,"e":1,"e":2,"":3}  `
	for name, want := range map[string]string{
		"a": "1", "b": `[{"a":2}]`, "c": `{"a":"}"}`, "d": "null", "e": "2", "": "3",
	} {
		require.Equal(t, want, string(Get([]byte(object), name)), name)
	}
	require.Nil(t, Get([]byte(object), "x"))
	for _, text := range []string{``, `[]`, `"a"`, `{"a":1`, `{"a":1} {}`, `{"a":NaN}`} {
		require.Nil(t, Get([]byte(text), "a"), text)
	}
}

func TestAppendSetReplacesOrAddsOneProperty(t *testing.T) {
	for _, test := range []struct{ object, name, value, want string }{
		{`{}`, "a", `1`, `{"a":1}`},
		{`{"a":1,"b":2}`, "a", `{"x":[]}`, `{"a":{"x":[]},"b":2}`},
		{`{"a":1,"b":2}`, "c", `"x"`, `{"a":1,"b":2,"c":"x"}`},
		{`{"a":1,"b":2,"a":3}`, "a", `4`, `{"a":4,"b":2}`},
		{`{"\u0061":1.50 , "b" : [ 1 ]}`, "a", `null`, `{"a":null,"b" : [ 1 ]}`},
		{`{"a":{"b":1}}`, "b", `2`, `{"a":{"b":1},"b":2}`},
		{`{}`, "q\"\n\u00fc<", `1`, `{"q\"\n\u00fc<":1}`},
	} {
		got, err := AppendSet([]byte("before "), []byte(test.object), test.name, []byte(test.value))
		require.NoError(t, err)
		text, found := strings.CutPrefix(string(got), "before ")
		require.True(t, found)
		if test.name == "q\"\n\u00fc<" {
			require.JSONEq(t, test.want, text)
			continue
		}
		require.Equal(t, test.want, text)
	}
	for _, test := range []struct{ object, value, want string }{
		{`[]`, `1`, "expected an object at byte 0"},
		{`{"a":1,}`, `1`, "expected a string as key at byte 7"},
		{`{} {}`, `1`, "unexpected text after the JSON value at byte 3"},
		{`{}`, ``, "the value is not JSON: unexpected end of JSON at byte 0"},
		{`{}`, `1,"b":2`, "the value is not JSON: unexpected text after the JSON value at byte 1"},
		{`{}`, `NaN`, "the value is not JSON: NaN or Infinity at byte 0"},
		{`{}`, strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth),
			"the value is not JSON: nested deeper than 128 levels at byte 127"},
	} {
		got, err := AppendSet([]byte("before"), []byte(test.object), "a", []byte(test.value))
		require.EqualError(t, err, test.want)
		require.Equal(t, "before", string(got), "what was there stays")
	}
}

func TestAppendDeleteTakesEveryMemberOfAName(t *testing.T) {
	for object, want := range map[string]string{
		`{}`:                               `{}`,
		`{"a":1}`:                          `{}`,
		`{"a":1,"b":{"a":2},"\u0061":[3]}`: `{"b":{"a":2}}`,
		` { "b" : 1 , "c":2 } `:            `{"b" : 1,"c":2}`,
	} {
		require.Equal(t, want, string(AppendDelete(nil, []byte(object), "a")))
		inPlace := []byte(object)
		require.Equal(t, want, string(AppendDelete(inPlace[:0], inPlace, "a")), "in the object's own memory")
	}
}

// A stage or plugin that brings its own memory reads and changes a property of every event without an allocation.
func TestPropertiesAreReadAndChangedWithoutAllocations(t *testing.T) {
	object, value, room := []byte(`{"$browser":"Chrome","$ip":"192.0.2.1","a":[1,2,{"b":null}]}`),
		[]byte(`"pro"`), make([]byte, 0, 1024)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if Get(object, "$browser") == nil {
			t.Fail()
		}
		changed, err := AppendSet(room, object, "$plan", value)
		if err != nil || len(AppendDelete(changed[len(changed):], changed, "$ip")) == 0 {
			t.Fail()
		}
	}))
}

// FuzzProperties compares Get, AppendSet and AppendDelete with encoding/json.
func FuzzProperties(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":{"c":"d"}}`), "a", []byte(`2`))
	f.Add([]byte(`{"\u0061":1,"a":[{}]}`), "a", []byte(`{"x":"\ud83d\ude00"}`))
	f.Add([]byte(` { } `), "\"", []byte(` null `))
	f.Add([]byte(`{"a":1,}`), "", []byte(`1,"b":2`))
	f.Fuzz(func(t *testing.T, object []byte, name string, value []byte) {
		if !utf8.Valid(object) || !utf8.Valid(value) || !utf8.ValidString(name) {
			return
		}
		var before, after map[string]json.RawMessage
		sound := Valid(object) && json.Unmarshal(object, &before) == nil && before != nil
		got, err := AppendSet(nil, object, name, value)
		if err != nil {
			require.False(t, sound && Valid(value) && !strings.Contains(err.Error(), "nested deeper"), "%v", err)
			return
		}
		require.True(t, sound && Valid(value))
		require.Equal(t, string(before[name]), string(Get(object, name)))

		require.NoError(t, json.Unmarshal(got, &after), "%s", got)
		set := string(bytes.TrimSpace(value))
		require.Equal(t, set, string(after[name]))
		require.Equal(t, set, string(Get(got, name)))
		rest := AppendDelete(nil, got, name)
		require.Nil(t, Get(rest, name))
		delete(before, name)
		delete(after, name)
		require.Equal(t, texts(before), texts(after))
		after = nil
		require.NoError(t, json.Unmarshal(rest, &after), "%s", rest)
		require.Equal(t, texts(before), texts(after))
	})
}

func texts(members map[string]json.RawMessage) map[string]string {
	all := map[string]string{}
	for name, value := range members {
		all[name] = string(value)
	}
	return all
}
