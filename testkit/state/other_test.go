//go:build state && !linux

package state

import "testing"

func TestLimitsHold(t *testing.T) {
	t.Fatal("the faults need Linux: its signals and /proc")
}
