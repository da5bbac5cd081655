package openapi

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencapture/capture/modules/admin/endpoint"
)

// object is a JSON object.
type object map[string]any

// Info is what the document says of the service as a whole.
type Info struct{ Title, Description, Version string }

// problem is what an answer of the listener itself has, such as 401.
const problem = "application/problem+json"

// wildcard is a parameter in the path of a pattern of net/http. {$} is none.
var wildcard = regexp.MustCompile(`\{([a-zA-Z_][a-zA-Z0-9_]*)(\.\.\.)?\}`)

// Document returns the document of the endpoints, as JSON. refusal is any value of the type that the body of a 401 or a
// 403 has.
func Document(info Info, endpoints []endpoint.Endpoint, refusal any) []byte {
	s := &schemas{components: object{}}
	paths := object{}
	for i := range endpoints {
		e := &endpoints[i]
		method, path, _ := strings.Cut(e.Pattern, " ")
		path = Path(path)
		item, ok := paths[path].(object)
		if !ok {
			item = object{}
			paths[path] = item
		}
		item[strings.ToLower(method)] = s.operation(e, method, path, refusal)
	}
	document := object{
		"openapi": "3.1.0",
		"info":    object{"title": info.Title, "description": info.Description, "version": info.Version},
		"paths":   paths,
		"components": object{
			"schemas": s.components,
			"securitySchemes": object{
				"bearer": object{
					"type": "http", "scheme": "bearer", "description": "admin.token.",
				},
				"basic": object{
					"type": "http", "scheme": "basic",
					"description": "admin.token as the password, with any user name.",
				},
			},
		},
	}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		panic(err) // it is made of texts, numbers, lists and objects
	}
	return append(text, '\n')
}

// Path returns the path of a pattern in the form of OpenAPI.
func Path(pattern string) string {
	return wildcard.ReplaceAllString(strings.TrimSuffix(pattern, "{$}"), "{$1}")
}

func (s *schemas) operation(e *endpoint.Endpoint, method, path string, refusal any) object {
	about := e.About
	operation := object{
		"operationId": operationID(method, path), "summary": about, "description": accessAbout[e.Access],
		"security": security(e.Access),
	}
	if parameters := s.parameters(e, path); len(parameters) > 0 {
		operation["parameters"] = parameters
	}
	if e.Operation.Body != nil {
		operation["requestBody"] = object{
			"required": true, "content": s.content("application/json", e.Operation.Body),
		}
	}
	responses := object{}
	for i := range e.Operation.Answers {
		answer := &e.Operation.Answers[i]
		response := object{"description": answer.About}
		if answer.Of != nil || answer.Type != "" {
			kind := answer.Type
			if kind == "" {
				kind = "application/json"
			}
			response["content"] = s.content(kind, answer.Of)
		}
		if len(answer.Headers) > 0 {
			headers := object{}
			for name, says := range answer.Headers {
				headers[name] = object{"description": says, "schema": object{"type": "string"}}
			}
			response["headers"] = headers
		}
		responses[strconv.Itoa(answer.Status)] = response
	}
	if e.Access != endpoint.Anyone {
		refused := object{
			"description": "The token of the operators is missing or wrong.", "content": s.content(problem, refusal),
		}
		responses[strconv.Itoa(http.StatusUnauthorized)] = refused
	}
	if e.Access == endpoint.Operator {
		refused := object{
			"description": "There is no token of the operators, and the request is not from this machine; or another " +
				"site has made a browser send it.",
			"content": s.content(problem, refusal),
		}
		responses[strconv.Itoa(http.StatusForbidden)] = refused
	}
	operation["responses"] = responses
	return operation
}

var accessAbout = map[endpoint.Access]string{
	endpoint.Operator: "For operators: with admin.token, or without one from this machine only.",
	endpoint.Reader:   "For readers: with admin.token if there is one.",
	endpoint.Anyone:   "For everybody who reaches the listener.",
}

// security says which logins an operation takes. The empty object stands for none.
func security(access endpoint.Access) []object {
	if access == endpoint.Anyone {
		return []object{{}}
	}
	return []object{{"bearer": []string{}}, {"basic": []string{}}, {}}
}

// operationID names an operation: getAdminUsage, getAdminProjectsByToken.
func operationID(method, path string) string {
	id := strings.ToLower(method)
	path = strings.ReplaceAll(path, "{", "by-")
	for word := range strings.FieldsFuncSeq(path, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) {
		id += strings.ToUpper(word[:1]) + word[1:]
	}
	return id
}

func (s *schemas) parameters(e *endpoint.Endpoint, path string) []object {
	var list []object
	described := map[string]bool{}
	for i := range e.Operation.Parameters {
		p := &e.Operation.Parameters[i]
		described[p.Name] = p.In == endpoint.Path || described[p.Name]
		schema := s.of(p.Of)
		if len(p.Values) > 0 {
			schema = object{"type": "string", "enum": p.Values}
		}
		list = append(list, object{
			"name": p.Name, "in": string(p.In), "description": p.About, "schema": schema,
			"required": p.Required || p.In == endpoint.Path,
		})
	}
	for _, found := range wildcard.FindAllStringSubmatch(path, -1) {
		if name := found[1]; !described[name] {
			list = append(list, object{
				"name": name, "in": "path", "required": true, "schema": object{"type": "string"},
			})
		}
	}
	return list
}

func (s *schemas) content(kind string, of any) object {
	if of == nil {
		return object{kind: object{}}
	}
	return object{kind: object{"schema": s.of(of)}}
}
