// Package powercut
package powercut
