package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/private"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

// replica is a file with the projects that the directory knows.
type replica struct {
	path string
	log  *zap.Logger

	mu sync.Mutex
	// edition is that of the directory that the file has. saved is when the file was written, and fault why it could
	// not be when that was last tried.
	edition uint64
	saved   time.Time
	fault   string
}

// replicaVersion is the version of the file's format.
const replicaVersion = 1

// maxReplica is the largest file that is read, in bytes.
const maxReplica = 1 << 30

// replicaFile is the content of the file, as JSON.
type replicaFile struct {
	Version  int              `json:"version"`
	Projects []replicaProject `json:"projects"`
}

type replicaProject struct {
	Token  string       `json:"token"`
	From   string       `json:"from"`
	Fields store.Fields `json:"fields"`
}

// load gives the directory the projects of the file, as records to be looked up at the next use: they count as long as
// nobody can say more. It returns how many it has given. A file that is not there has none.
func (r *replica) load(d *directory) (int, error) {
	err := private.Check(filepath.Dir(r.path))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var file *os.File
	if err == nil {
		file, err = os.Open(r.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	var content replicaFile
	if err := json.NewDecoder(io.LimitReader(file, maxReplica)).Decode(&content); err != nil {
		return 0, fmt.Errorf("read %s: %w", r.path, err)
	}
	if content.Version != replicaVersion {
		return 0, fmt.Errorf("%s has the format %d, and this release reads %d", r.path, content.Version, replicaVersion)
	}
	loaded := 0
	for _, one := range content.Projects {
		token, fault := events.CheckToken(one.Token)
		record, err := project.Parse(one.Fields)
		if fault != "" || token != one.Token || err != nil {
			r.log.Warn("a project of the replica has faults and is left out", zap.String("token", one.Token),
				zap.Error(err))
			continue
		}
		d.known.Add(token, &entry{token: token, known: newKnown(record, one.From)})
		loaded++
	}
	return loaded, nil
}

// save writes the file if the directory knows something else than the file.
func (r *replica) save(d *directory) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	edition := d.edition.Load()
	if edition == r.edition {
		return nil
	}
	content := replicaFile{Version: replicaVersion, Projects: make([]replicaProject, 0, d.known.Len())}
	for _, e := range d.known.Values() {
		content.Projects = append(content.Projects, replicaProject{
			Token: e.token, From: e.from, Fields: e.record.Fields(),
		})
	}
	slices.SortFunc(content.Projects, func(a, b replicaProject) int { return strings.Compare(a.Token, b.Token) })
	if err := r.write(content); err != nil {
		r.fault = err.Error()
		return err
	}
	r.edition, r.saved, r.fault = edition, time.Now().UTC(), ""
	return nil
}

// write puts the content in the place of the file. The file has the old content or the new, whenever the machine stops.
func (r *replica) write(content replicaFile) error {
	dir := filepath.Dir(r.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := private.Check(dir); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, filepath.Base(r.path)+".*.tmp") // with the mode 0600
	if err != nil {
		return err
	}
	err = json.NewEncoder(file).Encode(content)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), r.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	opened, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(opened.Sync(), opened.Close())
}

// replicaStatus tells an operator of the file.
type replicaStatus struct {
	Path  string     `json:"path"`
	Saved *time.Time `json:"saved,omitempty"`
	Error string     `json:"error,omitempty"`
}

func (r *replica) status() *replicaStatus {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	status := &replicaStatus{Path: r.path, Error: r.fault}
	if !r.saved.IsZero() {
		saved := r.saved
		status.Saved = &saved
	}
	return status
}
