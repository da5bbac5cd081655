package embedded

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// syncer has the disk keep each batch that the broker acknowledges, before a client gets the acknowledgement. The
// broker could sync by itself, but it ignores the result, and all clients wait meanwhile.
//
// After an error nothing is acknowledged until a restart: the system reports a failed write once and then forgets the
// failure.
type syncer struct {
	dir   string // the broker's data
	log   *zap.Logger
	fsync func(*os.File) error

	mu     sync.Mutex
	newest map[string]int64 // by partition directory: the newest segment that the directory surely keeps
	failed error
}

func newSyncer(dir string, log *zap.Logger) *syncer {
	return &syncer{dir: dir, log: log, fsync: (*os.File).Sync, newest: map[string]int64{}}
}

// err returns why nothing is acknowledged any more, or nil.
func (s *syncer) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// keep returns nil when the disk has every batch that an answer acknowledges.
func (s *syncer) keep(answer *kmsg.ProduceResponse) error {
	for _, topic := range answer.Topics {
		for _, partition := range topic.Partitions {
			if partition.ErrorCode != 0 {
				continue
			}
			name := fmt.Sprintf("%s-%d", url.PathEscape(topic.Topic), partition.Partition)
			if err := s.keepFrom(filepath.Join(s.dir, "partitions", name), partition.BaseOffset); err != nil {
				return s.fail(err)
			}
		}
	}
	return s.err()
}

func (s *syncer) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = fmt.Errorf("the disk does not keep what is written: %w", err)
		s.log.Error("the disk does not keep what the embedded broker writes: it acknowledges "+
			"nothing until the next start",
			zap.Error(err))
	}
	return s.failed
}

// keepFrom syncs the segments of a partition, beginning with the segment that has the offset. It skips missing
// segments: retention has removed them, or they went with their topic.
func (s *syncer) keepFrom(dir string, offset int64) error {
	segments, err := segments(dir)
	if err != nil {
		return err
	}
	first, _ := slices.BinarySearch(segments, offset+1)
	segments = segments[max(first-1, 0):]
	for _, base := range segments {
		if err := s.syncFile(filepath.Join(dir, strconv.FormatInt(base, 10)+segmentSuffix)); err != nil {
			return err
		}
	}
	return s.keepNames(dir, segments)
}

// keepNames syncs a partition's directory, and the directories above it, when the partition has a new segment.
func (s *syncer) keepNames(dir string, segments []int64) error {
	if len(segments) == 0 {
		return nil
	}
	base := segments[len(segments)-1]
	s.mu.Lock()
	newest, known := s.newest[dir]
	s.mu.Unlock()
	if known && newest >= base {
		return nil
	}
	for _, parent := range []string{dir, filepath.Dir(dir), s.dir, filepath.Dir(s.dir)} {
		if err := s.syncFile(parent); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest[dir] = base
	return nil
}

func (s *syncer) syncFile(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(s.fsync(file), file.Close())
}

const segmentSuffix = ".dat"

// segments returns the base offsets of the segments of a partition, the oldest first.
func segments(dir string) ([]int64, error) {
	open, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := open.Readdirnames(-1)
	if err := errors.Join(err, open.Close()); err != nil {
		return nil, err
	}
	var found []int64
	for _, name := range names {
		if digits, is := strings.CutSuffix(name, segmentSuffix); is {
			base, err := strconv.ParseInt(digits, 10, 64)
			if err != nil {
				return nil, err
			}
			found = append(found, base)
		}
	}
	slices.Sort(found)
	return found, nil
}
