package app

import (
	"context"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/panics"
)

// watchInterval is how often the reloader looks at the files of the configuration. The reloader loads a change once two
// looks in a row show the same content, so that it does not load a file that is still being written.
const watchInterval = time.Second

// reloader exchanges the configuration when one of its files has changed, and on SIGHUP.
type reloader struct {
	live    *configs.Live
	files   []string
	loaded  [32]byte // the digest of the files when the configuration was loaded last
	hangups <-chan os.Signal
	every   time.Duration

	cancel context.CancelFunc
	group  *panics.Group
}

// newReloader notes what the files hold. It is called before the configuration is loaded for the first time, so that
// the reloader misses no change.
func newReloader(files []string) *reloader {
	return &reloader{files: files, loaded: configs.FilesDigest(files), every: watchInterval}
}

// start begins to watch the files, and to log the outcome of every attempt to exchange the configuration.
func (r *reloader) start(live *configs.Live, log *zap.Logger) {
	r.live = live
	live.Report(func(status configs.Status) {
		switch {
		case status.Error != "":
			log.Error("the configuration was not exchanged, the one in force stays: "+status.Error,
				zap.Int("number", status.Number), zap.Time("since", status.Since))
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

// stop ends the watch.
func (r *reloader) stop() {
	if r.cancel != nil {
		r.cancel()
		r.group.Wait()
	}
}

func (r *reloader) watch(ctx context.Context) {
	ticker := time.NewTicker(r.every)
	defer ticker.Stop()
	looks := ticker.C
	if len(r.files) == 0 {
		looks = nil
	}
	seen := r.loaded
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hangups:
			r.reload(configs.FilesDigest(r.files))
		case <-looks:
			now, load := r.look(seen)
			if load {
				r.reload(now)
			}
			seen = now
		}
	}
}

// look returns the digest of the files and reports whether to load them. seen is the digest of the look before.
func (r *reloader) look(seen [32]byte) (now [32]byte, load bool) {
	now = configs.FilesDigest(r.files)
	return now, now != r.loaded && now == seen
}

// reload exchanges the configuration. digest is the digest of the files from before they are read. Live reports the
// outcome.
func (r *reloader) reload(digest [32]byte) {
	r.loaded = digest
	_, _ = r.live.Reload()
}
