//go:build chaos && linux

package chaos

import (
	"errors"
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
	service.environ = append(service.environ, process.JumpsEnv+"=2:1800,3:86400,7:-86400,9:0")
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
