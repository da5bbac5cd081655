//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "benchstate: this needs Linux: its /proc")
	os.Exit(1)
}
