package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// counted are the packages whose steps are counted.
var counted = []string{
	"github.com/opencapture/capture/configs", "github.com/opencapture/capture/modules/...",
	"github.com/opencapture/capture/transport/...", "github.com/opencapture/capture/testkit/cost",
	"google.golang.org/protobuf/...", "go.opentelemetry.io/proto/...", "github.com/klauspost/compress/...",
	"github.com/andybalholm/brotli", "github.com/google/uuid",
	"bytes", "encoding/base64", "encoding/hex", "encoding/json", "mime", "net/textproto", "net/url", "slices",
	"strconv", "strings", "unicode/utf8",
}

const (
	// growth is how many times the work may become when the request becomes twice as large.
	growth = 2.2
	// constant are the steps, and the bytes, that a request may be beside what grows.
	constant = 10_000
)

// An attacker has to send as much as the service is to work: no request becomes more work than in proportion to its
// size. Work is counted, not timed.
func TestTwiceTheInputIsAtMostTwiceTheWork(t *testing.T) {
	routes, err := serve(nil) // So this test is run anew when the protocols change.
	require.NoError(t, err)
	for _, attack := range attacks {
		require.Contains(t, routes, attack.request(1).Path, attack.name)
	}
	binary := filepath.Join(t.TempDir(), "cost")
	build := exec.Command("go", "build", "-cover", "-covermode=atomic", "-coverpkg="+strings.Join(counted, ","),
		"-o", binary, ".")
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)
	command := exec.Command(binary)
	command.Env = append(command.Environ(), "GOCOVERDIR="+t.TempDir())
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err = command.Output()
	require.NoError(t, err, "%s", stderr.Bytes())

	byName := map[string][]measured{}
	for lines := json.NewDecoder(bytes.NewReader(output)); ; {
		var line measured
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		byName[line.Name] = append(byName[line.Name], line)
	}
	require.Len(t, byName, len(attacks), "every name is there once")
	for name, lines := range byName {
		t.Run(name, func(t *testing.T) {
			require.Len(t, lines, 3)
			t.Log(lines)
			for i, line := range lines[1:] {
				before := lines[i]
				require.Equal(t, 2*before.Size, line.Size)
				require.LessOrEqual(t, float64(line.Steps), growth*float64(before.Steps)+constant, "steps")
			}
			// Buffers grow by leaps, so it is the growth in all that counts.
			first, last := lines[0], lines[len(lines)-1]
			require.LessOrEqual(t, float64(last.Allocated), growth*growth*float64(first.Allocated)+constant, "memory")
			require.LessOrEqual(t, float64(last.Output), growth*growth*float64(first.Output)+constant, "output")
			require.NotZero(t, first.Steps)
		})
	}
}
