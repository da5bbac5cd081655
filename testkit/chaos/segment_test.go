package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/delivery/spool"
)

// The records are found in a segment that the spool itself has written.
func TestRecordsInFindsWhatADamageDestroys(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Open(spool.Config{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: 1 << 20, MaxPending: 1 << 20},
		zap.NewNop())
	require.NoError(t, err)
	payloads := [][]byte{[]byte("one"), []byte("three"), nil, []byte("four")}
	_, err = s.Log("topic").Append(t.Context(), payloads)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	files, err := filepath.Glob(filepath.Join(dir, "topic", "*.log"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	segment, err := os.ReadFile(files[0])
	require.NoError(t, err)

	at := segmentHeader
	for i, payload := range payloads {
		end := at + recordHead + len(payload)
		for _, place := range []int{at, at + 4, at + 8, at + 16, end - 1} {
			found, err := recordsIn(segment, place, place+1)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("[%q]", segment[at:end]), fmt.Sprintf("%q", found),
				"record %d, byte %d", i, place)
		}
		found, err := recordsIn(segment, end-1, len(segment))
		require.NoError(t, err)
		require.Len(t, found, len(payloads)-i)
		at = end
	}
	require.Len(t, segment, at)
	found, err := recordsIn(segment, 0, segmentHeader)
	require.NoError(t, err)
	require.Empty(t, found)

	segment[segmentHeader] ^= 1
	_, err = recordsIn(segment, 0, 1)
	require.Error(t, err)
}
