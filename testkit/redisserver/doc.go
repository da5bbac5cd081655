// Package redisserver runs real redis-server processes for tests: a single one, a primary with replicas and Sentinels,
// or a Cluster; with TLS, users and an append-only file if a test needs them. Each has a free port of the loopback
// interface and a directory of its own, and none outlives the process of the test. Servers can be killed, hung and
// started again. It needs Linux and redis-server 7.
//
// Integration says whether a test runs in make integration, where redis-server is needed. Without it unit tests need no
// service.
package redisserver
