//go:build chaos && linux

package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// jumpsEnv tells the binary with the jumping clock when its clock must be wrong. "2:86400,4:-86400,6:0" means a day
// fast from the second second of the process's life on, a day slow from the fourth on, and right from the sixth on.
const jumpsEnv = "CHAOS_JUMPS"

// jumping builds the binary with a clock that jumps. Only the standard library's time.Now is changed. The Go runtime
// reads the time from memory that it shares with the kernel. So nothing outside of the process can change the time that
// the process sees, short of the clock of the whole machine.
var jumping = sync.OnceValues(func() (string, error) {
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
		return "", fmt.Errorf("%s is not as this test knows it: adapt the replacement of Now", original)
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
	text, _ := syscall.Getenv("` + jumpsEnv + `")
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
	replacement, overlay, path := filepath.Join(workplace, "time.go.txt"), filepath.Join(workplace, "overlay.json"),
		filepath.Join(workplace, "capture-jumping")
	description, err := json.Marshal(map[string]map[string]string{"Replace": {original: replacement}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(replacement, []byte(patched), 0o600),
		os.WriteFile(overlay, description, 0o600)); err != nil {
		return "", err
	}
	output, err := exec.Command("go", "build", "-C", "../..", "-trimpath", "-overlay", overlay, "-o", path,
		"github.com/opencapture/capture").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	return path, nil
})

// wrongClock gives the service a clock that is fast, at first by less than Kafka forgives
// (log.message.timestamp.after.max.ms, an hour), then by a day. The clock is then slow by a day, and at last right.
func wrongClock(_ *stage, service *service) (err error) {
	service.path, err = jumping()
	service.environ = append(service.environ, jumpsEnv+"=2:1800,3:86400,7:-86400,9:0")
	return err
}

// clockJump: the clock jumps while the service runs: with Kafka there, with Kafka away, when requests have failed
// already, and during the drain. Then the service is killed with events in its spool, and the times of its files are
// moved by a day, of every second one into the future and of the others into the past. A clock that jumped while they
// were written would leave such files.
func clockJump(s *stage) error {
	last(2 * time.Second)
	s.kafka.cut()
	last(5 * time.Second)
	if err := s.kafka.mend(); err != nil {
		return err
	}
	if err := s.flow(); err != nil {
		return err
	}
	if err := s.each(func(service *service) error {
		log, err := os.ReadFile(service.log())
		if err == nil && !strings.Contains(string(log), time.Now().UTC().Add(24*time.Hour).Format(time.DateOnly)) {
			err = errors.New("the service has logged nothing of tomorrow: the clock has not jumped")
		}
		return err
	}); err != nil {
		return err
	}
	if err := s.spoolFor(2 * time.Second); err != nil {
		return err
	}
	if err := s.each(func(service *service) error {
		day := 24 * time.Hour
		err := filepath.WalkDir(service.spool, func(path string, _ fs.DirEntry, err error) error {
			day = -day
			return errors.Join(err, os.Chtimes(path, time.Now().Add(day), time.Now().Add(day)))
		})
		if err != nil {
			return err
		}
		return service.run()
	}); err != nil {
		return err
	}
	return s.kafka.mend()
}
