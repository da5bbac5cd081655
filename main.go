// Capture receives product-analytics events over HTTP and writes them to Kafka.
package main

import (
	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/app/standard"
)

func main() { app.Main(standard.Modules()...) }
