package admin

import (
	"net/http"
	"net/http/pprof"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/observability"
)

func route(app *fiber.App, gatherer prometheus.Gatherer, health *observability.Health, log *zap.Logger) {
	app.Get("/metrics", adaptor.HTTPHandler(metrics(gatherer, log)))

	app.Get("/healthz", func(c *fiber.Ctx) error { return c.SendString("ok\n") })
	app.Get("/readyz", func(c *fiber.Ctx) error {
		report := health.Report(c.UserContext())
		if !report.Ready {
			c.Status(http.StatusServiceUnavailable)
		}
		return c.JSON(report)
	})

	app.Get("/debug/pprof", func(c *fiber.Ctx) error { return c.Redirect("/debug/pprof/") })
	app.Get("/debug/pprof/cmdline", adaptor.HTTPHandlerFunc(pprof.Cmdline))
	app.Get("/debug/pprof/profile", adaptor.HTTPHandlerFunc(pprof.Profile))
	app.All("/debug/pprof/symbol", adaptor.HTTPHandlerFunc(pprof.Symbol))
	app.Get("/debug/pprof/trace", adaptor.HTTPHandlerFunc(pprof.Trace))
	app.Get("/debug/pprof/*", adaptor.HTTPHandlerFunc(pprof.Index))
}

// metrics shows what could be gathered when a part could not: an operator needs the rest most when something is broken.
func metrics(gatherer prometheus.Gatherer, log *zap.Logger) http.Handler {
	return promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorLog:      scrapeLog{log},
		ErrorHandling: promhttp.ContinueOnError,
	})
}

// scrapeLog is promhttp's logger.
type scrapeLog struct{ log *zap.Logger }

func (l scrapeLog) Println(args ...any) {
	l.log.Sugar().Errorln(args...)
}
