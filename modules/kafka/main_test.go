package kafka_test

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(blackholeEnv) != "" {
		runBlackhole()
		return
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "16") // most tests wait most of their time
	goleak.VerifyTestMain(m,            // sarama's, one a process
		goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}
