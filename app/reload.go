package app

import (
	"context"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/panics"
)

// watchInterval is how often the reloader looks at the files of the configuration. The reloader loads a change once two
// looks in a row show the same content, so that it does not load a file that is still being written.
const watchInterval = time.Second

// reloader exchanges the configuration when one of its files has changed, and on SIGHUP. It also knows what the files
// held when the configuration was loaded last, whoever had it loaded.
type reloader struct {
	modules []module.Module
	live    *configs.Live
	hangups <-chan os.Signal
	every   time.Duration

	mu     sync.Mutex
	source configs.Source // as it was read for the last load

	cancel context.CancelFunc
	group  *panics.Group
}

func newReloader(modules []module.Module, source configs.Source) *reloader {
	return &reloader{modules: modules, source: source, every: watchInterval}
}

// load reads the files and loads the configuration.
func (r *reloader) load() (*configs.Set, error) {
	r.mu.Lock()
	r.source = r.source.Read()
	source := r.source
	r.mu.Unlock()
	return Load(r.modules, source)
}

// read returns the digest of the files as they are now, and of the files as they were when the configuration was loaded
// last.
func (r *reloader) read() (now, loaded [32]byte) {
	r.mu.Lock()
	source := r.source
	r.mu.Unlock()
	return source.Read().Digest(), source.Digest()
}

// start begins to watch the files, and to log the outcome of every attempt to exchange the configuration.
func (r *reloader) start(live *configs.Live, log *zap.Logger) {
	r.live = live
	live.Report(func(status configs.Status) {
		switch {
		case status.Refused():
			log.Error("the configuration was not exchanged, the one in force stays: "+status.Error,
				zap.Int("number", status.Number), zap.Time("since", status.Since))
		case status.Error != "":
			log.Error(status.Error, zap.Int("number", status.Number), zap.Strings("changed", status.Changed))
		case len(status.Changed) == 0:
			log.Info("the configuration was loaded, and nothing in it has changed")
		default:
			log.Info("the configuration was exchanged", zap.Int("number", status.Number),
				zap.Strings("changed", status.Changed))
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.group = cancel, panics.NewGroup(log)
	r.group.Keep(ctx, "the watch of the configuration", r.watch)
}

// stop ends the watch. A file that does not answer, or a module that does not prepare its part, holds the watch up and
// nothing else: stop waits for it no longer than a moment.
func (r *reloader) stop() {
	if r.cancel == nil {
		return
	}
	r.cancel()
	select {
	case <-r.group.Ended():
	case <-time.After(lastWord):
	}
}

func (r *reloader) watch(ctx context.Context) {
	ticker := time.NewTicker(r.every)
	defer ticker.Stop()
	_, seen := r.read()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hangups:
			r.reload()
		case <-ticker.C:
			now, load := r.look(seen)
			if load {
				r.reload()
			}
			seen = now
		}
	}
}

// look returns the digest of the files and reports whether to load them. seen is the digest of the look before.
func (r *reloader) look(seen [32]byte) (now [32]byte, load bool) {
	now, loaded := r.read()
	return now, now != loaded && now == seen
}

// reload exchanges the configuration. Live reports the outcome.
func (r *reloader) reload() { _, _ = r.live.Reload() }
