//go:build powercut && !linux

package powercut

import "testing"

func TestNoAcknowledgedEventIsLostInAPowerCut(t *testing.T) {
	t.Fatal("recording system calls needs Linux and its strace")
}
