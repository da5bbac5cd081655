package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/store"
)

const (
	recordPrefix, recordSuffix = "records-", ".json"
	// maxRecordFile is how long a file of records may be.
	maxRecordFile = 256 << 20
)

// recordFile is the file of the records of a kind, in JSON. A person may look at it, and change it while the service
// does not run.
type recordFile struct {
	Version int                     `json:"version"`
	Records map[string]store.Fields `json:"records"`
}

// saveRecords writes the records of a kind. When it has returned, the disk has them.
func (s *Store) saveRecords(kind string, k *records, byName map[string]store.Fields) error {
	if s.dir == nil {
		return nil
	}
	if k.blocked != nil {
		return k.blocked
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(recordFile{version, byName}); err != nil {
		return err
	}
	if text.Len() > maxRecordFile {
		return fmt.Errorf("the records of the kind %s would take %d bytes, and %d are allowed", kind, text.Len(),
			maxRecordFile)
	}
	return s.dir.replace(recordPrefix+kind+recordSuffix, func(f file) error {
		_, err := f.Write(text.Bytes())
		return err
	})
}

// saveAgain writes the records of a kind to a directory that was made anew.
func (s *Store) saveAgain(kind string, k *records) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	if len(k.byName) == 0 || k.blocked != nil {
		return nil
	}
	return s.saveRecords(kind, k, k.byName)
}

// loadRecords reads the files of records. A file that cannot be used is set aside.
func (s *Store) loadRecords(names []string) {
	for _, name := range names {
		kind, hasPrefix := strings.CutPrefix(name, recordPrefix)
		kind, hasSuffix := strings.CutSuffix(kind, recordSuffix)
		if !hasPrefix || !hasSuffix {
			continue
		}
		k, err := s.kind(kind)
		if err != nil {
			s.log.Warn("a file in the directory of the store is none of the service's", zap.String("file", name))
			continue
		}
		byName, err := s.readRecords(name)
		if err == nil {
			k.replace(byName)
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		aside := name + ".damaged-" + s.config.Now().UTC().Format("20060102T150405.000000000")
		if failed := s.dir.rename(name, aside); failed != nil {
			k.block(fmt.Errorf("%s cannot be read (%w) and cannot be set aside (%w)", name, err, failed))
			s.log.Error("a file of records cannot be read and cannot be set aside: there are no records of its kind "+
				"until it is mended or removed, and the service is started again", zap.String("file", s.dir.join(name)),
				zap.Error(errors.Join(err, failed)))
			continue
		}
		s.log.Error("a file of records cannot be read, and was set aside: there are no records of its kind until it "+
			"is mended and, while the service does not run, put back into its place",
			zap.String("file", s.dir.join(name)), zap.String("set_aside_as", s.dir.join(aside)), zap.Error(err))
	}
}

// block keeps a file from being overwritten.
func (k *records) block(err error) {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.blocked = err
}

// replace takes over the records of a file, and says so to those who watch.
func (k *records) replace(byName map[string]store.Fields) {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	k.byName, k.blocked = byName, nil
	watchers := k.changed
	k.mu.Unlock()
	for _, changed := range watchers {
		changed("")
	}
}

func (s *Store) readRecords(name string) (byName map[string]store.Fields, err error) {
	err = s.dir.read(name, func(f readFile) error {
		text, err := io.ReadAll(io.LimitReader(f, maxRecordFile+1))
		if err != nil {
			return err
		}
		byName, err = decodeRecords(text)
		return err
	})
	return byName, err
}

func decodeRecords(text []byte) (map[string]store.Fields, error) {
	if len(text) > maxRecordFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxRecordFile)
	}
	var content recordFile
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&content); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the records")
	}
	if content.Version != version {
		return nil, fmt.Errorf("%w: version %d, and this one knows %d", errVersion, content.Version, version)
	}
	if len(content.Records) > maxRecords {
		return nil, fmt.Errorf("there are %d records, and %d are allowed", len(content.Records), maxRecords)
	}
	byName := make(map[string]store.Fields, len(content.Records))
	for name, fields := range content.Records {
		if err := checkRecord(name, fields); err != nil {
			return nil, err
		}
		if len(fields) > 0 {
			byName[name] = fields
		}
	}
	return byName, nil
}
