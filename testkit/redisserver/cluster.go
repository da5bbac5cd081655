//go:build linux

package redisserver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencapture/capture/testkit/process"
)

// pause is how long a test waits before it looks again at a group of servers.
const pause = 20 * time.Millisecond

// slots is how many slots a Cluster has.
const slots = 16384

// Cluster is a Redis Cluster.
type Cluster struct {
	// Servers are the primaries, as they were at first, and then their replicas, in turns: the first replica is that of
	// the first primary.
	Servers []*Server

	primaries int
}

// StartCluster starts a Cluster of so many primaries, each with so many replicas, and returns when it serves. The
// cleanup of t ends it.
func StartCluster(t testing.TB, primaries, replicas int, options Options) *Cluster {
	t.Helper()
	c, err := OpenCluster(t.TempDir(), primaries, replicas, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c
}

// OpenCluster does what StartCluster does, with the files in a directory.
func OpenCluster(dir string, primaries, replicas int, options Options) (_ *Cluster, err error) {
	c := &Cluster{primaries: primaries}
	defer func() {
		if err != nil {
			c.Kill()
		}
	}()
	if options, err = options.shared(dir); err != nil {
		return nil, err
	}
	for i := range primaries * (1 + replicas) {
		server, err := openMember(filepath.Join(dir, fmt.Sprint("redis-", i)), options)
		if err != nil {
			return nil, err
		}
		c.Servers = append(c.Servers, server)
	}
	if err := c.join(); err != nil {
		return nil, err
	}
	err = c.Await()
	return c, err
}

// openMember starts a server that is to be a member of a Cluster.
func openMember(dir string, options Options) (*Server, error) {
	options.Lines = append(slices.Clone(options.Lines), "cluster-enabled yes", "cluster-node-timeout 2000")
	return Open(dir, options)
}

// join makes the servers a Cluster.
func (c *Cluster) join() error {
	first := c.Servers[0]
	for i, server := range c.Servers {
		if i < c.primaries {
			if _, err := server.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(slots*i/c.primaries),
				strconv.Itoa(slots*(i+1)/c.primaries-1)); err != nil {
				return err
			}
			// Each node needs an epoch of its own.
			if _, err := server.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
				return err
			}
		}
		if i > 0 {
			if _, err := server.Do("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(first.port),
				strconv.Itoa(first.bus)); err != nil {
				return err
			}
		}
	}
	for i, server := range c.Servers[c.primaries:] {
		id, err := c.Servers[i%c.primaries].Do("CLUSTER", "MYID")
		if err != nil {
			return err
		}
		// The replica has to have heard of its primary first.
		var problem error
		if err := process.Poll(patience, pause, func() (bool, error) {
			_, problem = server.Do("CLUSTER", "REPLICATE", fmt.Sprint(id))
			return problem == nil, nil
		}); err != nil {
			return fmt.Errorf("%w: %w", err, problem)
		}
	}
	return nil
}

// Await returns when every server says that the whole Cluster serves, and every replica is up to date.
func (c *Cluster) Await() error {
	var problem error
	err := process.Poll(patience, pause, func() (bool, error) {
		problem = c.whole()
		return problem == nil, nil
	})
	if err != nil {
		return fmt.Errorf("the Cluster: %w: %w", err, problem)
	}
	return nil
}

func (c *Cluster) whole() error {
	for _, server := range c.Servers {
		reply, err := server.Do("CLUSTER", "INFO")
		if err != nil {
			return err
		}
		for _, want := range []string{
			"cluster_state:ok\r\n", fmt.Sprintf("cluster_slots_ok:%d\r\n", slots),
			fmt.Sprintf("cluster_known_nodes:%d\r\n", len(c.Servers)), fmt.Sprintf("cluster_size:%d\r\n", c.primaries),
		} {
			if !strings.Contains(fmt.Sprint(reply), want) {
				return fmt.Errorf("%s: %v", server.Addr, reply)
			}
		}
		info, err := server.Info("replication")
		if err != nil {
			return err
		}
		if strings.Contains(info, "master_link_status:down") {
			return errors.New(info)
		}
	}
	return nil
}

// PrimaryOf returns the server that serves the slot of a key at present.
func (c *Cluster) PrimaryOf(key string) (*Server, error) {
	for _, asked := range c.Servers {
		if asked.Ended() != nil {
			continue
		}
		reply, err := asked.Do("CLUSTER", "KEYSLOT", key)
		slot, ok := reply.(int64)
		if err != nil || !ok {
			return nil, errors.Join(err, errShape)
		}
		ranges, err := asked.Do("CLUSTER", "SLOTS")
		if err != nil {
			return nil, err
		}
		at, err := primaryIn(ranges, slot)
		if err != nil {
			return nil, err
		}
		for _, server := range c.Servers {
			if server.Addr == at {
				return server, nil
			}
		}
		return nil, fmt.Errorf("the Cluster says that %s serves %q", at, key)
	}
	return nil, errors.New("no server of the Cluster runs")
}

// Failover kills the server that serves the slot of a key, and returns when a replica serves it.
func (c *Cluster) Failover(ctx context.Context, key string) (killed *Server, err error) {
	if killed, err = c.PrimaryOf(key); err != nil {
		return nil, err
	}
	killed.Kill()
	return killed, process.Poll(patience, pause, func() (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		primary, err := c.PrimaryOf(key)
		if err == nil && primary != killed {
			info, err := primary.Info("replication")
			return err == nil && strings.Contains(info, "role:master\r\n"), nil
		}
		return false, nil
	})
}

// primaryIn returns the address of the primary of a slot in an answer to CLUSTER SLOTS.
func primaryIn(ranges any, slot int64) (string, error) {
	all, _ := ranges.([]any)
	for _, one := range all {
		fields, _ := one.([]any)
		if len(fields) < 3 {
			return "", errShape
		}
		from, _ := fields[0].(int64)
		to, _ := fields[1].(int64)
		node, _ := fields[2].([]any)
		if len(node) < 2 {
			return "", errShape
		}
		if from <= slot && slot <= to {
			return fmt.Sprintf("%v:%v", node[0], node[1]), nil
		}
	}
	return "", fmt.Errorf("nobody serves slot %d", slot)
}

// Addrs returns the addresses of all servers.
func (c *Cluster) Addrs() []string { return addrs(c.Servers) }

// Kill ends all servers.
func (c *Cluster) Kill() { kill(c.Servers) }

func addrs(servers []*Server) []string {
	var all []string
	for _, server := range servers {
		all = append(all, server.Addr)
	}
	return all
}

func kill(groups ...[]*Server) {
	for _, servers := range groups {
		for _, server := range servers {
			server.Kill()
		}
	}
}
