package process

import (
	"errors"
	"fmt"
	"time"
)

// ErrLate is the error of Poll when the time is over.
var ErrLate = errors.New("not in time")

// Poll calls ask until it returns true or an error, or until the time is over.
func Poll(patience, interval time.Duration, ask func() (bool, error)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		if done, err := ask(); done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: waited %s", ErrLate, patience)
		}
	}
}
