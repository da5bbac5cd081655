//go:build chaos && !linux

package chaos

import "testing"

func TestNoAcknowledgedEventIsLost(t *testing.T) {
	t.Fatal("the faults need Linux: its file systems, its signals, strace and /proc")
}
