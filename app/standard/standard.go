// Package standard is the stock bundle: the modules of the capture binary. It is the only package that imports all of
// them. Another build lists other modules in its own main.go.
package standard

import (
	"github.com/opencapture/capture/modules/admin"
	"github.com/opencapture/capture/modules/auth"
	"github.com/opencapture/capture/modules/control"
	"github.com/opencapture/capture/modules/dedup"
	"github.com/opencapture/capture/modules/delivery"
	"github.com/opencapture/capture/modules/embedded"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/kafka"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/observability"
	"github.com/opencapture/capture/modules/quota"
	"github.com/opencapture/capture/modules/routing"
	"github.com/opencapture/capture/modules/store"
	"github.com/opencapture/capture/modules/store/local"
	"github.com/opencapture/capture/modules/store/redis"
	"github.com/opencapture/capture/modules/usage"
	"github.com/opencapture/capture/modules/warnings"
	"github.com/opencapture/capture/transport"
	"github.com/opencapture/capture/transport/ai"
	"github.com/opencapture/capture/transport/csp"
	"github.com/opencapture/capture/transport/otlp"
)

// Modules returns the modules of the stock binary.
func Modules() []module.Module {
	return []module.Module{
		observability.Module(),
		admin.Module(),
		store.Module(local.Backend(), redis.Backend()),
		auth.Module(),
		events.Module(),
		dedup.Module(),
		quota.Module(),
		routing.Module(),
		warnings.Module(),
		usage.Module(),
		control.Module(),
		kafka.Module(),
		delivery.Module(),
		embedded.Module(),
		transport.Module(),
		ai.Module(),
		csp.Module(),
		otlp.Module(),
	}
}
