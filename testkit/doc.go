// Package testkit starts the real service inside a test: the stock graph, on free ports, with a temporary data
// directory and the embedded broker. A test replaces the parts that it is about.
//
//	service := testkit.Start(t)
//	service.Post("/batch/", `{"api_key":"phc_test","batch":[...]}`)
//	messages := service.Messages()
//
// A test changes one thing and leaves the rest as it is in production:
//
//	sink := testkit.NewSink()
//	service := testkit.Start(t, testkit.Override[events.Sink](sink), testkit.Set("transport.retry_after", "7s"))
//
// If the environment variable CAPTURE_TEST_KAFKA_BROKERS names a cluster, the service writes to topics of its own in
// that cluster instead of the embedded broker. So the same tests prove the same against a real Kafka.
package testkit
