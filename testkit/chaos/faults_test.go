//go:build chaos && linux

package chaos

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/opencapture/capture/testkit/process"
	"github.com/opencapture/capture/testkit/proof"
)

var (
	promising = []string{modeKafka, modeSpool, modeAuto}
	spooling  = []string{modeSpool, modeAuto}
	all       = []string{modeKafka, modeSpool, modeAuto, modeMemory}
)

// scenarios is the table.
var scenarios = []scenario{
	{name: "kafka-stopped", modes: all, fault: kafkaStopped, spools: true},
	{name: "kafka-frozen", modes: promising, fault: kafkaFrozen, spools: true},
	{name: "kafka-stopped-long", modes: promising, fault: kafkaStopped, environ: impatient, spools: true},
	{name: "kafka-frozen-long", modes: promising, fault: kafkaFrozen, environ: impatient, spools: true},
	{name: "latency-5s-long", modes: promising, fault: latency, environ: impatient, spools: true},
	{name: "connection-cut", modes: promising, fault: connectionCut},
	{name: "latency-5s", modes: promising, fault: latency, spools: true},
	{name: "bandwidth-10kB", modes: promising, fault: bandwidth, spools: true},
	{name: "kill-9", modes: all, fault: kills},
	{name: "sigterm", modes: promising, fault: sigterm},
	{name: "disk-full", modes: spooling, before: smallDisk, fault: diskFull,
		shape: proof.Shape{Workers: 16, Keys: 4, PerKey: 5, Pad: 4000}, rate: 3000,
		environ: []string{"CAPTURE_DELIVERY__SPOOL__SEGMENT_BYTES=2MiB", "CAPTURE_DELIVERY__SPOOL__RESERVE=1MiB"},
		spools:  true, fills: true},
	{name: "spool-read-only", modes: spooling, fault: readOnly, environ: smallSegments},
	{name: "spool-flipped", modes: spooling, fault: damage(flip), environ: smallSegments},
	{name: "spool-truncated", modes: spooling, fault: damage(truncate), environ: smallSegments},
	{name: "slow-fsync", modes: spooling, before: slowSync, fault: whileSlow, spools: true},
	{name: "clock-jump", modes: promising, before: wrongClock, fault: clockJump,
		environ: append([]string{"CAPTURE_DELIVERY__TIMEOUT=1500ms"}, smallSegments...)},

	{name: "refused-size", modes: promising, fault: refusedSize, letters: true, shape: guilty},
	{name: "refused-timestamp", modes: spooling, fault: refusedTimestamp, spools: true},
	{name: "acl", modes: promising, fault: forbidden, spools: true},
	{name: "quota", modes: promising, fault: throttled},
	{name: "topic-deleted", modes: promising, fault: topicDeleted},
	{name: "partitions-added", modes: promising, fault: partitionsAdded, moves: true},
	{name: "cluster-empty", modes: promising, fault: clusterEmpty, spools: true},
	{name: "mode-change", modes: []string{modeAuto}, fault: modeChange, environ: slowDrain, spools: true},
	{name: "lanes", modes: []string{modeAuto}, fault: lanes, spools: true,
		environ: []string{"CAPTURE_DELIVERY__LANES__EXCEPTIONS=kafka", "CAPTURE_DELIVERY__TIMEOUT=2s"}},
	{name: "spool-late", modes: spooling, fault: spoolLate},
	{name: "spool-deleted", modes: spooling, fault: spoolDeleted, environ: smallSegments, spools: true},

	// These scenarios have three brokers.
	{name: "broker-killed", modes: promising, brokers: 3, fault: brokerKilled},
	{name: "broker-killed-long", modes: promising, brokers: 3, fault: brokerKilled, environ: impatient},
	{name: "min-isr", modes: promising, brokers: 3, fault: minISR, spools: true},
}

// impatient makes faults longer than kafka.ack_timeout. The producer then gives up batches that Kafka may append later.
var impatient = []string{
	"CAPTURE_KAFKA__ACK_TIMEOUT=2s", "CAPTURE_DELIVERY__TIMEOUT=3s", "CAPTURE_DELIVERY__SPOOL_AFTER=500ms",
}

// smallSegments makes the spool begin a new file often.
var smallSegments = []string{"CAPTURE_DELIVERY__SPOOL__SEGMENT_BYTES=1MiB"}

// kafkaStopped: the broker crashes and comes back.
func kafkaStopped(s *stage) error {
	broker := s.kafka.brokers[0]
	broker.kill()
	s.kafka.cut()
	last(shortOr(8*time.Second, 60*time.Second))
	if err := broker.start(); err != nil {
		return err
	}
	if err := s.kafka.awaitBrokers(); err != nil {
		return err
	}
	return s.kafka.mend()
}

// kafkaFrozen: the broker no longer answers, though its connections stand.
func kafkaFrozen(s *stage) error {
	if err := s.kafka.brokers[0].freeze(); err != nil {
		return err
	}
	last(shortOr(5*time.Second, 60*time.Second))
	if err := s.kafka.brokers[0].thaw(); err != nil {
		return err
	}
	return s.kafka.awaitBrokers()
}

// brokerKilled: one of three brokers crashes, which leads a third of the partitions, and comes back. In the long run
// each of the three does so.
func brokerKilled(s *stage) error {
	for i, broker := range s.kafka.brokers {
		broker.kill()
		s.kafka.brokers[i].proxy.Stop()
		last(shortOr(8*time.Second, 30*time.Second))
		if err := s.flow(); err != nil {
			return fmt.Errorf("with two brokers of three: %w", err)
		}
		if err := broker.start(); err != nil {
			return err
		}
		if err := s.kafka.awaitBrokers(); err != nil {
			return err
		}
		if err := s.kafka.mend(); err != nil {
			return err
		}
		if !*long {
			break
		}
	}
	return nil
}

// connectionCut: connections are reset in the middle of a request or an answer, several times.
func connectionCut(s *stage) error {
	for range shortOr(6, 60) {
		for _, direction := range []string{"upstream", "downstream"} {
			if err := s.kafka.poison(fmt.Sprintf(`{"type": "reset_peer", "stream": %q, "attributes": {"timeout": %d}}`,
				direction, rand.IntN(50))); err != nil {
				return err
			}
			last(300 * time.Millisecond)
			if err := s.kafka.cure(); err != nil {
				return err
			}
			last(500 * time.Millisecond)
		}
	}
	return nil
}

// latency: an answer takes 5 s.
func latency(s *stage) error {
	if err := s.kafka.poison(`{"type": "latency", "attributes": {"latency": 5000}}`); err != nil {
		return err
	}
	last(shortOr(5*time.Second, 60*time.Second))
	return s.kafka.cure()
}

// bandwidth: a connection carries 10 kB/s.
func bandwidth(s *stage) error {
	if err := s.kafka.poison(`{"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 10}}`); err != nil {
		return err
	}
	last(shortOr(5*time.Second, 60*time.Second))
	return s.kafka.cure()
}

// kills: the service is killed every one to two seconds. Kafka is away for some of the time, so that kills also come
// while the service spools and while it drains.
func kills(s *stage) error {
	n := shortOr(4, 100)
	for i := range n {
		last(time.Second + rand.N(time.Second))
		if err := s.each((*service).restart); err != nil {
			return fmt.Errorf("kill %d: %w", i+1, err)
		}
		var err error
		switch i % 5 {
		case 1:
			s.kafka.cut()
		case 3:
			err = s.kafka.mend()
		}
		if err != nil {
			return err
		}
	}
	for _, service := range s.services {
		s.say(service, "kills=%d", n)
	}
	return s.each(func(service *service) error { return service.awaitAnswer("/_liveness") })
}

// sigterm: the service is asked to end, and started again. The same happens once more while Kafka is away, in the modes
// that do without Kafka.
func sigterm(s *stage) error {
	for range shortOr(1, 20) {
		for _, away := range []bool{false, true} {
			if away {
				s.kafka.cut()
				last(2 * time.Second)
			}
			if err := s.each(func(service *service) error {
				if away && service.mode == modeKafka {
					return nil
				}
				started := time.Now()
				if err := service.terminate(); err != nil {
					return fmt.Errorf("SIGTERM with Kafka away=%t: %w", away, err)
				}
				if away && !*long {
					s.say(service, "stopped_in=%s", proof.Short(time.Since(started)))
				}
				return service.start()
			}); err != nil {
				return err
			}
			if err := s.kafka.mend(); err != nil {
				return err
			}
			if err := s.flow(); err != nil {
				return err
			}
		}
	}
	return nil
}

// mount mounts a file system for the duration of the scenario.
func (s *stage) mount(source, target, kind string, flags uintptr, data string) error {
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mounting %s: %w: this scenario has to run as root", target, err)
	}
	s.later(func() error {
		if err := syscall.Unmount(target, syscall.MNT_DETACH); !errors.Is(err, syscall.EINVAL) {
			return err
		}
		return nil // The file system was no longer mounted.
	})
	return nil
}

// smallDisk puts the spool on a disk of 32 MiB.
func smallDisk(s *stage, service *service) error {
	return s.mount("tmpfs", service.spool, "tmpfs", 0, "size=32m,mode=0700")
}

// diskFull: Kafka is away until the disk is full and requests are refused. Then another program takes the space that
// the service has left free, and Kafka comes back: the service must be able to drain on a full disk.
func diskFull(s *stage) error {
	s.kafka.cut()
	err := s.each(func(service *service) error {
		load := s.loads[service]
		if err := process.Poll(flowPatience, 10*time.Millisecond,
			func() (bool, error) { return load.Refused() > 20, nil }); err != nil {
			return fmt.Errorf("the disk is not full: %w", err)
		}
		filler, err := os.Create(filepath.Join(service.spool, "filler"))
		if err != nil {
			return err
		}
		defer func() { _ = filler.Close() }()
		for chunk := make([]byte, 4096); err == nil; {
			_, err = filler.Write(chunk)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
		refused := load.Refused()
		return process.Poll(flowPatience, 10*time.Millisecond,
			func() (bool, error) { return load.Refused() > refused+20, nil })
	})
	if err != nil {
		return err
	}
	if err := s.kafka.mend(); err != nil {
		return err
	}
	return s.flow()
}

// readOnly: the spool's directory becomes read-only while the service runs. Then Kafka goes away, and the service is
// killed and started again. As soon as the directory can be written to, the service has to work as before.
func readOnly(s *stage) error {
	// A file system with files that are open for writing can't be made read-only. But a read-only one can be laid above
	// it, and the service meets that one when it opens the next file.
	err := s.each(func(service *service) error {
		if err := s.mount(service.spool, service.spool, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
		return syscall.Mount("", service.spool, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, "")
	})
	if err != nil {
		return err
	}
	last(2 * time.Second)
	s.kafka.cut()
	last(3 * time.Second)
	if err := s.each(func(service *service) error {
		if err := service.restart(); err != nil {
			return err
		}
		last(3 * time.Second)
		return nil
	}); err != nil {
		return err
	}
	if err := s.kafka.mend(); err != nil {
		return err
	}
	last(time.Second)
	return s.each(func(service *service) error {
		if service.Ended() != nil {
			s.say(service, "boot=refused")
		} else {
			s.say(service, "boot=yes")
		}
		if err := syscall.Unmount(service.spool, syscall.MNT_DETACH); err != nil {
			return err
		}
		if service.Ended() != nil {
			return service.run()
		}
		return nil
	})
}

// spoolFor fills the spools for some time while Kafka is away, and kills the services.
func (s *stage) spoolFor(d time.Duration) error {
	s.kafka.cut()
	last(d)
	return s.each(func(service *service) error {
		service.kill()
		return nil
	})
}

// segments returns the files that hold a spool's records, by name.
func segments(spool string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(spool, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && filepath.Ext(path) == ".log" {
			files = append(files, path)
		}
		return err
	})
	slices.Sort(files)
	return files, err
}

// segmentsToDamage is how many files a spool has when one of them is damaged.
const segmentsToDamage = 4

// damage: while the service is down, how damages a file of its spool. The damaged records may be lost, and no others.
// The service has to start, and to say how much it has cut out.
func damage(how func(content []byte) (damaged []byte, from, to []int)) func(*stage) error {
	return func(s *stage) error {
		s.kafka.cut()
		if err := s.each(func(service *service) error {
			err := process.Poll(flowPatience, 20*time.Millisecond, func() (bool, error) {
				files, err := segments(service.spool)
				return len(files) >= segmentsToDamage, err
			})
			service.kill()
			if err != nil {
				return fmt.Errorf("too few segments to damage one: %w", err)
			}
			return nil
		}); err != nil {
			return err
		}
		if err := s.each(func(service *service) error {
			files, err := segments(service.spool)
			if err != nil {
				return err
			}
			// This is the longest file except the newest, whose end a crash may have torn.
			files = slices.DeleteFunc(files, func(path string) bool { return path == files[len(files)-1] })
			path := slices.MaxFunc(files, func(a, b string) int { return cmp.Compare(size(a), size(b)) })
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			damaged, from, to := how(bytes.Clone(content))
			for i := range from {
				records, err := recordsIn(content, from[i], to[i])
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				for _, record := range records {
					s.excuse(service, record)
				}
			}
			if len(s.excused[service]) == 0 {
				return errors.New("no ids of events in the damaged records: does the spool encode them?")
			}
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				return err
			}
			return service.run()
		}); err != nil {
			return err
		}
		if err := s.kafka.mend(); err != nil {
			return err
		}
		if err := s.flow(); err != nil {
			return err
		}
		return s.each(func(service *service) error {
			if err := process.Poll(drainPatience(), 50*time.Millisecond, func() (bool, error) {
				corrupt, err := service.metric(metricCorrupt)
				return corrupt > 0, err
			}); err != nil {
				return fmt.Errorf("nothing was found to be corrupt: %w", err)
			}
			return nil
		})
	}
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

var ids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4000-8000-[0-9a-f]{12}`)

// excuse tells the judge of the service's events about every event whose id is in the record.
func (s *stage) excuse(of *service, record []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range ids.FindAll(record, -1) {
		id, err := uuid.ParseBytes(text)
		if err != nil {
			continue
		}
		if e, ok := proof.EventOf(id); ok {
			s.excused[of] = append(s.excused[of], e)
		}
	}
}

// flips is how many bytes flip changes.
const flips = 5

// flip changes single bytes.
func flip(content []byte) (damaged []byte, from, to []int) {
	for i := range flips {
		at := (i*len(content) + len(content)/2) / flips
		content[at] ^= 0x55
		from, to = append(from, at), append(to, at+1)
	}
	return content, from, to
}

// truncate cuts off the last third.
func truncate(content []byte) (damaged []byte, from, to []int) {
	at := len(content) * 2 / 3
	return content[:at], []int{at}, []int{len(content)}
}

// slowSync makes every fsync of the service take 200 ms longer. The tracer is no parent of the service and ends with
// it.
func slowSync(s *stage, service *service) error {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return fmt.Errorf("%w: install it (Debian and Ubuntu: apt-get install strace)", err)
	}
	service.wrap = []string{
		strace, "-D", "-f", "--seccomp-bpf", "-qqq", "-o", filepath.Join(service.dir, "fsync.log"),
		"-e", "signal=none", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_exit=200000",
	}
	return nil
}

// whileSlow: Kafka goes away and comes back.
func whileSlow(s *stage) error {
	s.kafka.cut()
	last(shortOr(4*time.Second, 30*time.Second))
	if err := s.kafka.mend(); err != nil {
		return err
	}
	return s.each(func(service *service) error {
		trace, err := os.ReadFile(filepath.Join(service.dir, "fsync.log"))
		n := bytes.Count(trace, []byte("(DELAYED)"))
		if err == nil && n == 0 {
			err = errors.New("the service has not called fsync or fdatasync")
		}
		s.say(service, "fsyncs=%d", n)
		return err
	})
}
