//go:build chaos && linux

package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/proof"
)

// slowDrain makes a drain take long, so that much can happen meanwhile.
var slowDrain = []string{"CAPTURE_DELIVERY__DRAIN__MIN_RATE=64KiB", "CAPTURE_DELIVERY__DRAIN__SPEED=1.2"}

// modeChange: the service is started again and again with another ack mode, while its spool fills and drains.
func modeChange(s *stage) error {
	// Mode memory promises nothing. Its events only have to be in order.
	for _, service := range s.services {
		s.excuseBatches(service, func(b proof.Batch) bool { return b.Ack == modeMemory })
	}
	s.kafka.cut()
	last(4 * time.Second)
	change := func(to string, crash bool, refusing ...string) error {
		return s.each(func(service *service) error {
			if crash {
				service.kill()
			} else if err := service.terminate(); err != nil {
				return err
			}
			service.setAck(to)
			if err := service.run(); err != nil {
				return err
			}
			load := s.loads[service]
			before := load.Acked()
			last(1500 * time.Millisecond)
			if acked := load.Acked() - before; len(refusing) > 0 && acked > 0 {
				return fmt.Errorf("mode %s has acknowledged %d events although others wait in the spool", to, acked)
			}
			return nil
		})
	}
	if err := change(modeKafka, true, modeKafka); err != nil {
		return err
	}
	if err := change(modeMemory, false); err != nil {
		return err
	}
	if err := s.kafka.mend(); err != nil {
		return err
	}
	for i, mode := range []string{modeSpool, modeKafka, modeAuto, modeMemory, modeKafka} {
		if err := change(mode, i%2 == 0); err != nil {
			return err
		}
	}
	if err := s.each(func(service *service) error {
		waiting, err := service.metric(metricRecords)
		if err == nil && waiting == 0 {
			err = errors.New("nothing waits in the spool any more: the modes have changed too late")
		}
		// From now on the service drains as fast as usual.
		service.environ = slices.DeleteFunc(service.environ, func(text string) bool {
			return slices.Contains(slowDrain, text)
		})
		return err
	}); err != nil {
		return err
	}
	if err := change(modeSpool, true); err != nil {
		return err
	}
	if err := s.each(func(service *service) error { return service.awaitDrain(drainPatience()) }); err != nil {
		return err
	}
	for _, mode := range []string{modeMemory, modeAuto} {
		if err := change(mode, false); err != nil {
			return err
		}
	}
	return nil
}

// lanes: exceptions are acknowledged only when Kafka has them, and ordinary events when the spool has them.
func lanes(s *stage) error {
	service := s.services[0]
	exceptions := service.load(proof.Shape{Workers: 4, Keys: 4, PerKey: 5, Pad: 150, Name: "$exception"}, usualRate/4)
	s.others[service] = append(s.others[service], exceptions)
	flows := func(from int64) error {
		return process.Poll(flowPatience, 10*time.Millisecond,
			func() (bool, error) { return exceptions.Acked() > from+200, nil })
	}
	if err := flows(0); err != nil {
		return err
	}
	s.kafka.cut()
	if err := process.Poll(flowPatience, 10*time.Millisecond,
		func() (bool, error) { return exceptions.Refused() > 0, nil }); err != nil {
		return fmt.Errorf("no exception was refused: %w", err)
	}
	acked, refused := exceptions.Acked(), s.loads[service].Refused()
	if err := s.observe(shortOr(4*time.Second, 60*time.Second)); err != nil {
		return fmt.Errorf("ordinary events: %w", err)
	}
	switch n := exceptions.Acked() - acked; {
	case n > 0:
		return fmt.Errorf("%d exceptions were acknowledged without Kafka", n)
	case s.loads[service].Refused() > refused:
		return errors.New("ordinary events were refused with the exceptions")
	}
	if err := s.kafka.mend(); err != nil {
		return err
	}
	return flows(exceptions.Acked())
}

// spoolLate: the service starts while it can't have the spool in which events wait. First another process has the
// spool, then the spool is read-only. Nothing may overtake the events that wait, although Kafka is there.
func spoolLate(s *stage) error {
	for _, occupy := range []func(*service) (free func() error, err error){s.lock, s.makeReadOnly} {
		if err := s.spoolFor(2 * time.Second); err != nil {
			return err
		}
		if err := s.kafka.mend(); err != nil {
			return err
		}
		if err := s.each(func(service *service) error {
			free, err := occupy(service)
			if err != nil {
				return err
			}
			if err := service.run(); err != nil {
				return errors.Join(err, free())
			}
			load := s.loads[service]
			// Answers of the process before are still on their way.
			last(time.Second)
			acked, refused := load.Acked(), load.Refused()
			last(shortOr(5*time.Second, 30*time.Second))
			switch n := load.Acked() - acked; {
			case n > 0:
				err = fmt.Errorf("%d events were acknowledged in front of those that wait", n)
			case load.Refused() == refused:
				err = errors.New("no answer")
			}
			return errors.Join(err, free())
		}); err != nil {
			return err
		}
		if err := s.flow(); err != nil {
			return err
		}
	}
	return nil
}

// lock takes the spool's lock, as another process would.
func (s *stage) lock(of *service) (free func() error, err error) {
	file, err := os.OpenFile(filepath.Join(of.spool, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file.Close, nil
}

// makeReadOnly lays a read-only file system above the spool's directory.
func (s *stage) makeReadOnly(of *service) (free func() error, err error) {
	if err := s.mount(of.spool, of.spool, "", syscall.MS_BIND, ""); err != nil {
		return nil, err
	}
	free = func() error { return syscall.Unmount(of.spool, syscall.MNT_DETACH) }
	return free, syscall.Mount("", of.spool, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, "")
}

// spoolDeleted: somebody removes the spool's files while Kafka is away, first those that a shell's * matches, then the
// directory itself. Events that only these files held are lost. Events that are acknowledged after that are not lost.
func spoolDeleted(s *stage) error {
	s.kafka.cut()
	for _, all := range []bool{false, true} {
		last(2500 * time.Millisecond)
		if err := s.each(func(service *service) error {
			began := time.Now()
			// The service may make files while they are removed.
			err := process.Poll(flowPatience, time.Millisecond,
				func() (bool, error) { return removed(service.spool, all), nil })
			ended := time.Now()
			s.excuseBatches(service, func(b proof.Batch) bool { return b.Ack == modeSpool && b.Sent().Before(ended) })
			if d := ended.Sub(began); d > time.Second {
				s.say(service, "removed_in=%s", proof.Short(d))
			}
			return err
		}); err != nil {
			return err
		}
	}
	last(2500 * time.Millisecond)
	return s.kafka.mend()
}

// removed removes the files in a directory, or with all the directory too, and reports whether it has succeeded.
func removed(dir string, all bool) bool {
	if all {
		return os.RemoveAll(dir) == nil
	}
	paths, err := filepath.Glob(filepath.Join(dir, "[^.]*"))
	for _, path := range paths {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err == nil
}
