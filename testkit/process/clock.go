//go:build linux

package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// JumpsEnv tells the binary with the jumping clock when its clock must be wrong. "2:86400,4:-86400,6:0" means a day
// fast from the second second of the process's life on, a day slow from the fourth on, and right from the sixth on.
const JumpsEnv = "CHAOS_JUMPS"

// Jumping returns a function that builds the stock binary with a clock that jumps, as the environment variable JumpsEnv
// says, and returns its path. Only the standard library's time.Now is changed. The Go runtime
// reads the time from memory that it shares with the kernel. So nothing outside of the process can change the time that
// the process sees, short of the clock of the whole machine.
func Jumping(dir func() string) func() (string, error) {
	return sync.OnceValues(func() (string, error) { return jumping(dir()) })
}

func jumping(dir string) (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	const imports = "import (\n"
	if strings.Count(string(source), now) != 1 || !strings.Contains(string(source), imports) {
		return "", fmt.Errorf("%s is not as this package knows it: adapt the replacement of Now", original)
	}
	patched := strings.Replace(string(source), now, now+"\tsec += chaosJump(mono)\n", 1)
	patched = strings.Replace(patched, imports, imports+"\t\"syscall\"\n", 1) + `
// chaosJumps are pairs: nanoseconds of the process's life, and by how many seconds the clock is wrong from then on.
var chaosJumps = func() (jumps [][2]int64) {
	number := func(text string) (n int64) {
		for i := 0; i < len(text); i++ {
			if text[i] != '-' {
				n = 10*n + int64(text[i]-'0')
			}
		}
		if text != "" && text[0] == '-' {
			return -n
		}
		return n
	}
	text, _ := syscall.Getenv("` + JumpsEnv + `")
	for text != "" {
		end, colon := 0, 0
		for ; end < len(text) && text[end] != ','; end++ {
			if text[end] == ':' {
				colon = end
			}
		}
		jumps = append(jumps, [2]int64{number(text[:colon]) * 1e9, number(text[colon+1 : end])})
		text = text[min(end+1, len(text)):]
	}
	return jumps
}()

func chaosJump(mono int64) (by int64) {
	for _, jump := range chaosJumps {
		if mono-startNano >= jump[0] {
			by = jump[1]
		}
	}
	return by
}
`
	replacement, overlay := filepath.Join(dir, "time.go.txt"), filepath.Join(dir, "overlay.json")
	path := filepath.Join(dir, "capture-jumping")
	description, err := json.Marshal(map[string]map[string]string{"Replace": {original: replacement}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(replacement, []byte(patched), 0o600),
		os.WriteFile(overlay, description, 0o600)); err != nil {
		return "", err
	}
	return path, build(path, "-overlay", overlay)
}
