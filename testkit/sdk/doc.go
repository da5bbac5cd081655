// Package sdk proves with real SDKs that nothing of what an application tells them to send is lost, comes twice or
// comes out of order: the tests, which make sdk-e2e runs, start the service and one program (driver) for each version
// of an SDK, and hold what the driver was told to send against what lies in Kafka.
//
// The tests have the build tag sdk, since they need Node.js, Python, Chromium and packages from their registries:
// install.sh installs what is pinned here and names it to the tests. The rows of the table in sdk_test.go are the SDKs;
// a further version is a pin and a row.
//
// # Drivers
//
// A driver performs a script with one SDK. Its environment says what to do:
//
//	CAPTURE_URL          where the SDK sends to, without a trailing slash
//	CAPTURE_TOKEN        the project's token
//	CAPTURE_SCENARIO     basic, retry, dropped or halving
//	CAPTURE_SDK_VERSION  the version of the SDK
//	CAPTURE_MODE         the protocol where the SDK has a choice, such as v0 and v1, and after a "+" the compression
//	CAPTURE_SDK_MODULES  for JavaScript, the directory with the SDK's node_modules
//
// The scenario basic is every kind of call that the SDK has. In retry and dropped 40 events of 4 users are sent in
// several batches while requests are answered 503, or not at all. In halving 64 events of 2 kB are sent in one batch,
// uncompressed, which is too large. The tests' scenario unheard is dropped for the driver: it sends requests whose
// events the service stores and whose answers are lost.
//
// Before each call it prints what it is about to tell the SDK, as one line of JSON on stdout:
//
//	{"user": "ann", "event": "signed up", "id": "7"}
//
// where id is also given to the SDK as the event's property e2e_id. Calls that take no properties have an empty id.
// Events that the SDK sends of its own accord are announced with the least number that must arrive:
//
//	{"auto": "$pageview", "min": 1}
//
// A driver exits with 0 once the SDK has said that it is done, and with another code if anything that the SDK
// answered is not as it should be.
package sdk
