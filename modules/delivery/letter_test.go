package delivery

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/produce"
)

func TestFiltersOfTimeAndUser(t *testing.T) {
	t.Parallel()
	m := produce.Message{Headers: []produce.Header{
		{Key: []byte("dlq_timestamp"), Value: []byte("2026-11-27T10:00:00.000Z")},
		{Key: []byte("token"), Value: []byte("phc")},
		{Key: []byte("distinct_id"), Value: []byte("u")}, {Key: []byte("event"), Value: []byte("e")},
	}}
	l := newLetter("dead/0/1", &m)
	for text, matches := range map[string]bool{
		"since=2026-11-27T10:00:00Z": true,
		"since=2026-11-27T10:00:01Z": false,
		"until=2026-11-27T10:00:00Z": false,
		"until=2026-11-27T10:00:01Z": true,
		"token=phc":                  true,
		"token=phx":                  false,
		"distinct_id=u":              true,
		"event=e":                    true,
		"event=f":                    false,
		"id=dead/0/1":                true,
		"id=dead/0/2":                false,
	} {
		f, err := parseFilter([]string{text}, produce.DefaultTopics())
		require.NoError(t, err)
		require.Equal(t, matches, f.matches(&l), text)
	}
}
