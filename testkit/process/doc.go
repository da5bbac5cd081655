// Package process runs the stock binary, and other programs, for the suites that do to a running service what no test
// inside its process can do: testkit/chaos, testkit/powercut and testkit/hostile; and for the servers of
// testkit/redisserver. It needs Linux.
package process
