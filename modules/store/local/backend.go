package local

import (
	"errors"
	"io/fs"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/private"
	"github.com/opencapture/capture/modules/store"
)

// Backend is the store of a single node, for store.Module.
func Backend() store.Backend {
	return store.Backend{
		Name: store.Local,
		New: func(parts store.Parts) (store.Running, error) {
			c := parts.Config
			return New(Config{
				Dir: c.Dir, Memory: int64(c.Local.Memory), Counters: int64(c.Local.Counters), Timeout: c.Timeout,
			}, parts.Log, parts.Scope), nil
		},
		Metrics: module.Metrics{
			"local_digests":           "Delivered events that the store of this node remembers.",
			"local_reservations":      "Events in work that the store of this node knows of.",
			"local_counters":          "Counters of quotas and rates that the store of this node keeps.",
			"local_evicted_total":     "Delivered events forgotten early, since store.local.memory was full.",
			"local_full_total":        "Calls that failed since store.local.memory or store.local.counters was full.",
			"local_disk_faults_total": "Failed attempts to write what the store of this node keeps to store.dir.",
			"local_disk_failing":      "1 while store.dir lacks some of what the store of this node knows, else 0.",
		},
		Probes: []configs.Rule{directoryCanBeUsed},
	}
}

// directoryCanBeUsed checks the directory of the store.
func directoryCanBeUsed(set *configs.Set) error {
	own, err := configs.SectionOf[store.Config](set)
	if err != nil || own.Dir == "" {
		return err
	}
	var faults configs.Faults
	faults.CheckDir("store.dir", own.Dir, "the service would keep its state in memory, and forget it with a restart")
	if err := private.Check(own.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) && faults.Err() == nil {
		faults.Addf("store.dir", "%s", err)
	}
	return faults.Err()
}
