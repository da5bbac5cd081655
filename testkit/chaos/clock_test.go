//go:build chaos && linux

package chaos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencapture/capture/testkit/process"
)

// jumping builds the binary with a clock that jumps.
var jumping = process.Jumping(func() string { return workplace })

// wrongClock gives the service a clock that is fast, at first by less than Kafka forgives
// (log.message.timestamp.after.max.ms, an hour), then by a day. The clock is then slow by a day, and at last right.
func wrongClock(_ *stage, service *service) (err error) {
	service.path, err = jumping()
	service.environ = append(service.environ, process.JumpsEnv+
		fmt.Sprintf("=2:1800,3:86400,%d:-86400,%d:0", slowFrom, rightFrom))
	return err
}

// slowFrom is the second of its life in which the service's clock becomes slow, and rightFrom the one from which on it
// is right. On any machine the load flows before.
const slowFrom, rightFrom = 25, 29

// clockJump: the clock jumps while the service runs: with Kafka there, with Kafka away, when requests have failed
// already, and during the drain. Then the service is killed with events in its spool, and the times of its files are
// moved by a day, of every second one into the future and of the others into the past. A clock that jumped while they
// were written would leave such files.
func clockJump(s *stage) error {
	last(2 * time.Second)
	s.kafka.cut()
	tomorrow := time.Now().UTC().Add(24 * time.Hour).Format(time.DateOnly)
	if err := s.each(func(service *service) error {
		if err := process.Poll(flowPatience, 20*time.Millisecond, func() (bool, error) {
			log, err := os.ReadFile(service.log())
			return strings.Contains(string(log), tomorrow), err
		}); err != nil {
			return fmt.Errorf("the service has logged nothing of tomorrow: the clock has not jumped: %w", err)
		}
		// Requests have failed by the time at which the clock becomes slow. It becomes right during the drain.
		last(time.Until(time.Unix(0, service.serving.Load()).Add(slowFrom*time.Second + time.Second)))
		return nil
	}); err != nil {
		return err
	}
	if err := s.kafka.mend(); err != nil {
		return err
	}
	if err := s.flow(); err != nil {
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
