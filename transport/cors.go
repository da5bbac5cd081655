package transport

import "github.com/gofiber/fiber/v2"

// allowOrigin writes the CORS headers of an answer to a browser. Every origin is allowed, and with credentials:
// sendBeacon always sends them, and a browser then refuses "*". The headers are on answers of every status, so that a
// page can read an error and its Retry-After.
func allowOrigin(c *fiber.Ctx) {
	header := &c.Response().Header
	origin := c.Request().Header.Peek(fiber.HeaderOrigin)
	header.Set(fiber.HeaderVary, "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	if len(origin) == 0 {
		return
	}
	header.SetBytesV(fiber.HeaderAccessControlAllowOrigin, origin)
	header.Set(fiber.HeaderAccessControlAllowCredentials, "true")
	header.Set(fiber.HeaderAccessControlExposeHeaders, "Retry-After, X-Request-Id, X-Capture-Ack")
	if !isPreflight(c) {
		return
	}
	header.Set(fiber.HeaderAccessControlAllowMethods, "GET, POST, OPTIONS")
	if asked := c.Request().Header.Peek(fiber.HeaderAccessControlRequestHeaders); len(asked) > 0 {
		header.SetBytesV(fiber.HeaderAccessControlAllowHeaders, asked)
	}
}

// isPreflight reports whether a browser asks with this request for leave to send another one.
func isPreflight(c *fiber.Ctx) bool {
	header := &c.Request().Header
	return c.Method() == fiber.MethodOptions &&
		len(header.Peek(fiber.HeaderOrigin)) > 0 && len(header.Peek(fiber.HeaderAccessControlRequestMethod)) > 0
}
