//go:build chaos && linux

package chaos

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	"github.com/Shopify/toxiproxy/v2"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/opencapture/capture/testkit/process"
)

// cluster is a real Apache Kafka of one broker or of three. The service reaches each broker through a proxy; the broker
// gives the proxy's address to its clients on that listener. The judge and the brokers among themselves use a listener
// of their own.
type cluster struct {
	brokers []*broker
	server  *toxiproxy.ApiServer // of the proxies
}

// broker is one broker of a cluster.
type broker struct {
	dir                string
	command, format    []string
	direct, controller int
	proxy              *toxiproxy.Proxy
	process            *process.Process
}

// jars returns the directory of Kafka's jars.
var jars = sync.OnceValues(func() (string, error) {
	command := exec.Command("../services/services.sh", "jars")
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("services.sh jars: %w", err)
	}
	return strings.TrimSpace(string(output)), nil
})

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// startCluster starts n brokers that keep their data in dir, and returns when all of them serve.
func startCluster(dir string, n int) (_ *cluster, err error) {
	lib, err := jars()
	if err != nil {
		return nil, err
	}
	c := new(cluster)
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	c.server = toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	var voters []string
	for id := 1; id <= n; id++ {
		b := &broker{
			dir:    filepath.Join(dir, fmt.Sprint("broker-", id)),
			direct: process.FreePort(), controller: process.FreePort(),
		}
		b.proxy = toxiproxy.NewProxy(c.server, fmt.Sprint("kafka-", id), address(process.FreePort()),
			address(process.FreePort()))
		if err := b.proxy.Start(); err != nil {
			return nil, err
		}
		c.brokers = append(c.brokers, b)
		voters = append(voters, fmt.Sprintf("%d@%s", id, address(b.controller)))
	}
	id := uuid.New()
	cluster := base64.RawURLEncoding.EncodeToString(id[:])
	err = c.each(func(i int, b *broker) error {
		if err := os.MkdirAll(b.dir, 0o750); err != nil {
			return err
		}
		replicas, inSync := min(n, 3), max(1, min(n, 3)-1)
		quorum, standalone := "controller.quorum.voters="+strings.Join(voters, ","), []string{}
		if n == 1 {
			quorum, standalone = "controller.quorum.bootstrap.servers="+address(b.controller), []string{"--standalone"}
		}
		properties := filepath.Join(b.dir, "server.properties")
		settings := []string{
			"process.roles=broker,controller",
			fmt.Sprint("node.id=", i+1),
			fmt.Sprintf("listeners=PROXIED://%s,DIRECT://%s,CONTROLLER://%s", b.proxy.Upstream, address(b.direct),
				address(b.controller)),
			fmt.Sprintf("advertised.listeners=PROXIED://%s,DIRECT://%s", b.proxy.Listen, address(b.direct)),
			"listener.security.protocol.map=PROXIED:PLAINTEXT,DIRECT:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"inter.broker.listener.name=DIRECT",
			"controller.listener.names=CONTROLLER",
			quorum,
			"log.dirs=" + filepath.Join(b.dir, "data"),
			"num.partitions=3",
			"auto.create.topics.enable=false",
			fmt.Sprint("default.replication.factor=", replicas),
			fmt.Sprint("min.insync.replicas=", inSync),
			fmt.Sprint("offsets.topic.replication.factor=", replicas),
			fmt.Sprint("transaction.state.log.replication.factor=", replicas),
			fmt.Sprint("transaction.state.log.min.isr=", inSync),
		}
		if n == 1 {
			// Only a single controller has an authorizer. Several controllers could not elect one of them, because they
			// have no ACLs before the election.
			settings = append(settings,
				"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
				"allow.everyone.if.no.acl.found=true")
		}
		if err := os.WriteFile(properties, []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
			return err
		}
		b.format = append([]string{"-cp", filepath.Join(lib, "*"), "kafka.tools.StorageTool", "format",
			"--cluster-id=" + cluster, "-c", properties}, standalone...)
		b.command = []string{"java", "-Xmx512m", "-cp", filepath.Join(lib, "*"), "kafka.Kafka", properties}
		if n > 1 {
			// The scenarios of several brokers measure nothing. Java starts sooner if it optimizes less.
			b.command = slices.Insert(b.command, 1, "-XX:TieredStopAtLevel=1")
		}
		if err := b.empty(); err != nil {
			return err
		}
		return b.start()
	})
	if err != nil {
		return nil, err
	}
	return c, c.awaitBrokers()
}

// each runs f for every broker at the same time.
func (c *cluster) each(f func(int, *broker) error) error {
	faults := make([]error, len(c.brokers))
	var all sync.WaitGroup
	for i, b := range c.brokers {
		all.Go(func() { faults[i] = f(i, b) })
	}
	all.Wait()
	return errors.Join(faults...)
}

// start starts a broker that does not run.
func (b *broker) start() (err error) {
	b.process, err = process.Start(b.dir, filepath.Join(b.dir, "kafka.log"), nil, b.command...)
	return err
}

// empty removes the data of a broker that does not run, and prepares its directory for a cluster without data.
func (b *broker) empty() error {
	if err := os.RemoveAll(filepath.Join(b.dir, "data")); err != nil {
		return err
	}
	if output, err := exec.Command("java", b.format...).CombinedOutput(); err != nil {
		return fmt.Errorf("formatting Kafka's storage: %w\n%s", err, output)
	}
	return nil
}

// kill ends a broker at once, as a crash does. The data that it had written is on the disk, or in the kernel's care.
func (b *broker) kill() {
	if b.process != nil {
		b.process.Kill()
	}
}

// freeze stops a broker while its connections stay open, so that it no longer answers. thaw lets it go on.
func (b *broker) freeze() error { return b.process.Signal(syscall.SIGSTOP) }
func (b *broker) thaw() error   { return b.process.Signal(syscall.SIGCONT) }

// brokersPatience is how long the brokers may take to serve. Three of them start at the same time, and two cores that
// do other work as well need minutes for that.
const brokersPatience = 10 * time.Minute

// awaitBrokers returns when every broker serves.
func (c *cluster) awaitBrokers() error {
	var problem error
	err := process.Poll(brokersPatience, 200*time.Millisecond, func() (bool, error) {
		problem = c.serves()
		for _, b := range c.brokers {
			if b.process.Ended() != nil {
				return false, fmt.Errorf("a broker has ended\n%s", process.Tail(filepath.Join(b.dir, "kafka.log")))
			}
		}
		return problem == nil, nil
	})
	if err != nil {
		return fmt.Errorf("kafka does not serve: %w: %w", err, problem)
	}
	return nil
}

func (c *cluster) serves() error {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Metadata.Retry.Max, config.Net.DialTimeout, config.Net.ReadTimeout = 0, 5*time.Second, 15*time.Second
	// Each broker is asked separately: a broker that is back in the cluster's list may not listen yet.
	for _, b := range c.brokers {
		client, err := sarama.NewClient([]string{address(b.direct)}, config)
		if err != nil {
			return err
		}
		n := len(client.Brokers())
		_ = client.Close()
		if n != len(c.brokers) {
			return fmt.Errorf("%d of %d brokers", n, len(c.brokers))
		}
	}
	return nil
}

// addresses returns the brokers' addresses as the service is told them. direct returns those that avoid the proxies.
func (c *cluster) addresses() []string {
	var all []string
	for _, b := range c.brokers {
		all = append(all, b.proxy.Listen)
	}
	return all
}

func (c *cluster) direct() []string {
	var all []string
	for _, b := range c.brokers {
		all = append(all, address(b.direct))
	}
	return all
}

// cut closes all connections between the service and Kafka, and refuses new ones. mend allows connections again.
func (c *cluster) cut() {
	for _, b := range c.brokers {
		b.proxy.Stop()
	}
}

func (c *cluster) mend() error {
	for _, b := range c.brokers {
		if err := b.proxy.Start(); err != nil && !errors.Is(err, toxiproxy.ErrProxyAlreadyStarted) {
			return err
		}
	}
	return nil
}

// poison adds a toxic to every connection. toxiproxy's own interface describes the text of a toxic.
func (c *cluster) poison(toxic string) error {
	for _, b := range c.brokers {
		if _, err := b.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			return err
		}
	}
	return nil
}

// revive undoes the remains of a failed scenario: brokers that do not run or do not answer, and toxics.
func (c *cluster) revive() error {
	if err := c.each(func(_ int, b *broker) error {
		if b.process.Ended() != nil {
			return b.start()
		}
		return b.thaw()
	}); err != nil {
		return err
	}
	return errors.Join(c.cure(), c.awaitBrokers())
}

// admin runs f with a connection to the cluster that avoids the proxies.
func (c *cluster) admin(f func(sarama.ClusterAdmin) error) error {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.ClientID = "chaos"
	config.Metadata.AllowAutoTopicCreation = false
	admin, err := sarama.NewClusterAdmin(c.direct(), config)
	if err != nil {
		return err
	}
	return errors.Join(f(admin), admin.Close())
}

// cure removes all toxics, together with their connections. When a toxic is removed, toxiproxy may drop some bytes of a
// stream and go on with the rest, which no network does.
func (c *cluster) cure() error {
	for _, b := range c.brokers {
		// A new proxy has no toxics. The toxics of the old one cannot be taken away safely: now and then toxiproxy
		// waits for ever, when a connection ends meanwhile.
		b.proxy.Stop()
		b.proxy = toxiproxy.NewProxy(c.server, b.proxy.Name, b.proxy.Listen, b.proxy.Upstream)
	}
	return c.mend()
}

// close ends the brokers and removes their data.
func (c *cluster) close() {
	for _, b := range c.brokers {
		b.kill()
		b.proxy.Stop()
		_ = os.RemoveAll(filepath.Join(b.dir, "data"))
	}
}
