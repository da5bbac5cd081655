package openapi_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/admin/openapi"
)

type embedded struct {
	Inner bool `json:"inner"`
}

type secret string

func (secret) MarshalText() ([]byte, error) { return []byte("******"), nil }

type book struct {
	embedded

	Title   string            `json:"title" doc:"What it is called."`
	Pages   uint16            `json:"pages,omitempty"`
	Price   float64           `json:"price"`
	Printed time.Time         `json:"printed"`
	Day     string            `json:"day" format:"date"`
	Cover   string            `json:"cover" enum:"hard,soft"`
	Notes   map[string]int    `json:"notes,omitempty"`
	Authors []string          `json:"authors"`
	Next    *book             `json:"next"`
	Other   *book             `json:"other,omitempty"`
	Any     any               `json:"any,omitempty"`
	Key     secret            `json:"key"`
	Plain   int               //nolint:tagliatelle // without a tag
	Hidden  func()            `json:"-"`
	hidden  map[string]string //nolint:unused // it is not exported
}

type shelf[T any] struct {
	Items []T `json:"items"`
}

func TestADocumentHasWhatTheEndpointsSay(t *testing.T) {
	text := openapi.Document(openapi.Info{Title: "T", Version: "v1"}, []endpoint.Endpoint{{
		Pattern: "GET /books/{id}/{rest...}", About: "A book.", Access: endpoint.Reader,
		Operation: endpoint.Operation{
			Parameters: []endpoint.Parameter{
				{In: endpoint.Path, Name: "id", About: "Which."},
				{In: endpoint.Query, Name: "page", Of: 0, About: "Where."},
				{In: endpoint.Query, Name: "kind", Values: []string{"a", "b"}, Required: true},
			},
			Answers: []endpoint.Answer{
				{Status: 200, About: "It.", Of: book{}, Headers: map[string]string{"ETag": "Its tag."}},
				{Status: 204, About: "Nothing."},
				{Status: 404, About: "None.", Type: "text/plain"},
			},
		},
	}, {
		Pattern: "PUT /books/{id}", About: "Puts a book.",
		Operation: endpoint.Operation{Body: shelf[book]{}, Answers: []endpoint.Answer{{Status: 200, About: "Done."}}},
	}, {
		Pattern: "GET /{$}", About: "All.", Access: endpoint.Anyone,
		Operation: endpoint.Operation{Answers: []endpoint.Answer{{Status: 200, About: "All.", Of: []book{}}}},
	}}, struct{}{})
	var got struct {
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Schemas map[string]json.RawMessage }
	}
	require.NoError(t, json.Unmarshal(text, &got))
	require.JSONEq(t, `{
		"operationId": "getBooksByIdByRest", "summary": "A book.",
		"description": "For readers: with admin.token if there is one.",
		"security": [{"bearer": []}, {"basic": []}, {}],
		"parameters": [
			{"name": "id", "in": "path", "required": true, "description": "Which.", "schema": {"type": "string"}},
			{"name": "page", "in": "query", "required": false, "description": "Where.", "schema": {"type": "integer"}},
			{"name": "kind", "in": "query", "required": true, "description": "",
				"schema": {"type": "string", "enum": ["a", "b"]}},
			{"name": "rest", "in": "path", "required": true, "schema": {"type": "string"}}
		],
		"responses": {
			"200": {
				"description": "It.",
				"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Book"}}},
				"headers": {"ETag": {"description": "Its tag.", "schema": {"type": "string"}}}
			},
			"204": {"description": "Nothing."},
			"401": {
				"description": "The token of the operators is missing or wrong.",
				"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Object"}}}
			},
			"404": {"description": "None.", "content": {"text/plain": {}}}
		}
	}`, string(got.Paths["/books/{id}/{rest}"]["get"]))
	require.Contains(t, string(got.Paths["/books/{id}"]["put"]), `"$ref": "#/components/schemas/ShelfOfBook"`)
	require.Contains(t, string(got.Paths["/books/{id}"]["put"]), `"403"`)
	require.NotContains(t, string(got.Paths["/"]["get"]), `"401"`)
	require.JSONEq(t, `{
		"type": "object", "additionalProperties": false,
		"required": ["inner", "title", "price", "printed", "day", "cover", "authors", "next", "key", "Plain"],
		"properties": {
			"inner": {"type": "boolean"},
			"title": {"type": "string", "description": "What it is called."},
			"pages": {"type": "integer", "minimum": 0},
			"price": {"type": "number"},
			"printed": {"type": "string", "format": "date-time"},
			"day": {"type": "string", "format": "date"},
			"cover": {"type": "string", "enum": ["hard", "soft"]},
			"notes": {"type": "object", "additionalProperties": {"type": "integer"}},
			"authors": {"type": "array", "items": {"type": "string"}},
			"next": {"anyOf": [{"$ref": "#/components/schemas/Book"}, {"type": "null"}]},
			"other": {"$ref": "#/components/schemas/Book"},
			"any": {},
			"key": {"type": "string"},
			"Plain": {"type": "integer"}
		}
	}`, string(got.Components.Schemas["Book"]))
}

func TestTwoTypesOfOneNameAreTwoSchemas(t *testing.T) {
	outer := book{}
	type book struct {
		Other int `json:"other"`
	}
	answers := []endpoint.Answer{{Status: 200, Of: outer}, {Status: 404, Of: book{}}}
	text := string(openapi.Document(openapi.Info{}, []endpoint.Endpoint{{
		Pattern: "GET /x", Operation: endpoint.Operation{Answers: answers}, Access: endpoint.Anyone,
	}}, nil))
	require.Contains(t, text, `"#/components/schemas/Book"`)
	require.Contains(t, text, `"#/components/schemas/Book2"`)
	require.PanicsWithValue(t, "openapi: no schema for chan int", func() {
		openapi.Document(openapi.Info{}, []endpoint.Endpoint{{
			Operation: endpoint.Operation{Answers: []endpoint.Answer{{Of: make(chan int)}}},
		}}, nil)
	})
}
