// Package openapi writes the document that describes the operators' endpoints to programs, in the form of OpenAPI 3.1.
// The document is made of what the endpoints themselves say (endpoint.Operation), and the schemas are made of the Go
// types of bodies and answers, so the document has no text that could lag behind the code. A test in testkit asks the
// real service and validates its answers by the document.
package openapi
