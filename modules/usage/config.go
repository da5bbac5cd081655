package usage

import (
	"errors"
	"io/fs"
	"time"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/private"
)

// Config is the section "usage".
type Config struct {
	Dir       string        `key:"dir" doc:"Directory that keeps what the tokens have sent, a file a day; one process at a time uses it. A directory that other users can write to is not used; the service makes a missing one with the right mode. Empty, or not usable: the counts of today and yesterday are kept in memory, and end with the process."`
	MaxTokens int           `key:"max_tokens" doc:"How many tokens are counted each for itself, at up to 1 KiB of memory. All further tokens are counted together."`
	Days      int           `key:"days" doc:"How many days are kept: the newest ones in which something was sent."`
	SaveEvery time.Duration `key:"save_every" doc:"How often the counts are written to the disk. A process that is killed loses what it has counted since."`
}

// DefaultConfig returns the defaults of the section.
func DefaultConfig() Config {
	return Config{Dir: "./data/usage", MaxTokens: 10_000, Days: 400, SaveEvery: 10 * time.Second}
}

// mostTokens bounds max_tokens: the file of a day is read whole.
const mostTokens = 1_000_000

// Validate reports every fault of the section.
func (c Config) Validate() error {
	var faults configs.Faults
	faults.Check(c.MaxTokens > 0 && c.MaxTokens <= mostTokens, "max_tokens", "must be from 1 to %d, got %d",
		mostTokens, c.MaxTokens)
	faults.Check(c.Days > 0, "days", "must be positive, got %d", c.Days)
	faults.Check(c.SaveEvery > 0, "save_every", "must be positive, got %s", c.SaveEvery)
	return faults.Err()
}

// bytesOfToken is how much memory a token takes that sends events of a few resources, which end in a few ways.
const bytesOfToken = int64(configs.KiB)

// MemoryBudget implements configs.MemoryBudgeter.
func (c Config) MemoryBudget(*configs.Set, int64) int64 { return int64(c.MaxTokens) * bytesOfToken }

// stopBudget is how long the last write may take.
const stopBudget = 2 * time.Second

// StopBudget is how long a stop may take.
func (c Config) StopBudget() time.Duration { return stopBudget }

// probe looks whether the directory can be used.
func probe(set *configs.Set) error {
	own, err := configs.SectionOf[Config](set)
	if err != nil {
		return err
	}
	var faults configs.Faults
	if own.Dir == "" {
		return nil
	}
	faults.CheckDir("usage.dir", own.Dir, "the counts would end with the process")
	if err := private.Check(own.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) && faults.Err() == nil {
		faults.Addf("usage.dir", "%s", err)
	}
	return faults.Err()
}
