package transport

import (
	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/opencapture/capture/transport/route"
)

// allowOrigin writes the CORS headers of an answer to a browser. Every origin is allowed, and with credentials:
// sendBeacon always sends them, and a browser then refuses "*". The headers are on answers of every status, so that a
// page can read an error and its Retry-After. What the answer repeats of the request is printable ASCII; anything else
// is in no browser's request.
func allowOrigin(c *fasthttp.RequestCtx) {
	header := &c.Response.Header
	origin := c.Request.Header.Peek(fiber.HeaderOrigin)
	header.Set(fiber.HeaderVary, "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	if len(origin) == 0 || !isPrintable(origin) {
		return
	}
	header.SetBytesV(fiber.HeaderAccessControlAllowOrigin, origin)
	header.Set(fiber.HeaderAccessControlAllowCredentials, "true")
	header.Set(fiber.HeaderAccessControlExposeHeaders, exposed)
	if !isPreflight(c) {
		return
	}
	header.Set(fiber.HeaderAccessControlAllowMethods, "GET, POST, OPTIONS")
	asked := c.Request.Header.Peek(fiber.HeaderAccessControlRequestHeaders)
	if len(asked) > 0 && isPrintable(asked) {
		header.SetBytesV(fiber.HeaderAccessControlAllowHeaders, asked)
	}
}

// exposed are the headers of an answer that a page may read.
const exposed = "Retry-After, X-Request-Id, " + headerAck + ", " + route.HeaderRateLimit + ", " +
	route.HeaderRateLimitPolicy + ", " + route.HeaderLimits

// isPreflight reports whether a browser asks with this request for leave to send another one.
func isPreflight(c *fasthttp.RequestCtx) bool {
	header := &c.Request.Header
	return string(header.Method()) == fiber.MethodOptions &&
		len(header.Peek(fiber.HeaderOrigin)) > 0 && len(header.Peek(fiber.HeaderAccessControlRequestMethod)) > 0
}

// isPrintable reports whether a text is of printable ASCII.
func isPrintable(text []byte) bool {
	for _, b := range text {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return true
}
