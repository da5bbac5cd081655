package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/opencapture/capture/modules/produce"
)

func drawMessage(t *rapid.T) produce.Message {
	text := rapid.SliceOf(rapid.Byte())
	m := produce.Message{
		Topic: rapid.String().Draw(t, "topic"),
		Value: text.Draw(t, "value"),
		Time:  time.UnixMilli(rapid.Int64Range(-1<<40, 1<<50).Draw(t, "time")),
	}
	if rapid.Bool().Draw(t, "keyed") {
		m.Key = text.Draw(t, "key")
	}
	for range rapid.IntRange(0, 5).Draw(t, "headers") {
		m.Headers = append(m.Headers, produce.Header{Key: text.Draw(t, "name"), Value: text.Draw(t, "text")})
	}
	return m
}

func requireSame(t require.TestingT, want, got produce.Message) {
	require.Equal(t, want.Topic, got.Topic)
	require.Equal(t, want.Key == nil, got.Key == nil, "a message without a key stays one")
	require.Equal(t, string(want.Key), string(got.Key))
	require.Equal(t, string(want.Value), string(got.Value))
	require.True(t, want.Time.Equal(got.Time), "%s %s", want.Time, got.Time)
	require.Len(t, got.Headers, len(want.Headers))
	for i, header := range want.Headers {
		require.Equal(t, string(header.Key), string(got.Headers[i].Key))
		require.Equal(t, string(header.Value), string(got.Headers[i].Value))
	}
}

func TestARecordIsReadAsItWasWritten(t *testing.T) {
	var got produce.Message // used for several records, as by the drain
	rapid.Check(t, func(t *rapid.T) {
		want := drawMessage(t)
		require.NoError(t, readRecord(appendRecord(nil, &want, want.Time), &got))
		requireSame(t, want, got)
	})
}

func TestATruncatedRecordIsNoRecord(t *testing.T) {
	m := produce.Message{Topic: "t", Key: []byte("k"),
		Headers: []produce.Header{{Key: []byte("a"), Value: []byte("b")}}, Time: time.Now()}
	record := appendRecord(nil, &m, m.Time)
	for n := range record {
		require.ErrorIs(t, readRecord(record[:n], new(produce.Message)), errRecord, "%d bytes", n)
	}
	require.ErrorIs(t, readRecord(append([]byte{recordVersion + 1}, record[1:]...), new(produce.Message)), errRecord)
}

func FuzzSpooledMessage(f *testing.F) {
	m := produce.Message{Topic: "t", Key: []byte("k"), Value: []byte("v"),
		Headers: []produce.Header{{Key: []byte("a"), Value: []byte("b")}}, Time: time.UnixMilli(1)}
	f.Add(appendRecord(nil, &m, m.Time))
	f.Add([]byte{recordVersion, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, record []byte) {
		var first, second produce.Message
		if readRecord(record, &first) != nil {
			return
		}
		require.LessOrEqual(t, len(first.Headers), len(record))
		require.NoError(t, readRecord(appendRecord(nil, &first, first.Time), &second))
		requireSame(t, first, second)
	})
}
