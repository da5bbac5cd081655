//go:build hostile && !linux

package hostile

import "testing"

func TestMemoryIsOneBudget(t *testing.T) {
	t.Fatal("the attacks need Linux: its signals and /proc")
}
