package spool

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInspectReadsWithoutChangingAnything(t *testing.T) {
	cfg := testConfig(t)
	s := openSpool(t, cfg)
	appendAll(t, s.Log("t"), "a", "b", "c")
	s.Log("t").Done(1)
	require.False(t, s.InUse(), "by another")

	for range 2 { // the first look leaves no trace
		looked, err := Inspect(cfg.Dir)
		require.NoError(t, err)
		require.True(t, looked.InUse())
		require.Len(t, looked.Logs(), 1)
		require.Equal(t, []got{{2, "b"}, {3, "c"}}, readAll(t, looked.Log("t"), 1<<20))
		_, err = looked.Log("new").Append(t.Context(), payloads("d"))
		require.ErrorIs(t, err, errReadOnly)
		require.NoError(t, looked.Close())
	}
	require.NoError(t, s.Close())
	looked, err := Inspect(cfg.Dir)
	require.NoError(t, err)
	require.False(t, looked.InUse())
	require.EqualValues(t, 2, looked.Log("t").Stats().Records)
}

func TestInspectOfNothingFindsNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	looked, err := Inspect(dir)
	require.NoError(t, err)
	require.False(t, looked.InUse())
	require.Empty(t, looked.Logs())
	require.Empty(t, readAll(t, looked.Log("t"), 1<<20))
	require.NoError(t, looked.Close())
	_, err = os.Stat(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAnExemptAppendPassesTheLimits(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxBytes = 200
	s := openSpool(t, cfg)
	l := s.Log("t")
	for {
		if _, err := l.Append(t.Context(), payloads("0123456789")); err != nil {
			require.ErrorIs(t, err, ErrFull)
			break
		}
	}
	require.Less(t, s.Usage().Room, int64(headSize+10))
	other := s.Log("other")
	_, err := other.AppendExempt(t.Context(), payloads("0123456789"))
	require.NoError(t, err)
	require.Greater(t, s.Usage().Bytes, cfg.MaxBytes)
	require.Zero(t, s.Usage().Room)
	require.True(t, s.Usage().Full)
	_, err = other.Append(t.Context(), payloads("0123456789"))
	require.ErrorIs(t, err, ErrFull, "the same log takes both")
}
