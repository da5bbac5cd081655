package openapi

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// schemas makes schemas of Go types. Structs become components, which other schemas refer to.
type schemas struct{ components object }

// of returns the schema of a value's type. Nil is a string.
func (s *schemas) of(value any) object {
	if value == nil {
		return object{"type": "string"}
	}
	return s.ofType(reflect.TypeOf(value))
}

var (
	timeType = reflect.TypeFor[time.Time]()
	textType = reflect.TypeFor[encoding.TextMarshaler]()
)

func (s *schemas) ofType(t reflect.Type) object {
	switch {
	case t == timeType:
		return object{"type": "string", "format": "date-time"}
	case t.Implements(textType):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.ofType(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice, reflect.Array:
		return object{"type": "array", "items": s.ofType(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.ofType(t.Elem())}
	case reflect.Interface:
		return object{}
	case reflect.Struct:
		return s.ofStruct(t)
	}
	panic(fmt.Sprintf("openapi: no schema for %s", t))
}

// plain are the characters that the name of a component may have.
var plain = regexp.MustCompile(`[^A-Za-z0-9]+`)

// ofStruct puts the schema of a struct among the components and returns a reference to it.
func (s *schemas) ofStruct(t reflect.Type) object {
	name := cmp.Or(plain.ReplaceAllString(t.Name(), ""), "object")
	if i := strings.IndexByte(t.Name(), '['); i > 0 { // a generic type: Page[.../usage.Row] is PageOfRow
		inner := t.Name()[i+1 : len(t.Name())-1]
		inner = plain.ReplaceAllString(inner[strings.LastIndexAny(inner, "./")+1:], "")
		name = t.Name()[:i] + "Of" + strings.ToUpper(inner[:1]) + inner[1:]
	}
	name = strings.ToUpper(name[:1]) + name[1:]
	for first, n := name, 2; ; n++ {
		known, taken := s.components[name].(component)
		if taken && known.of == t {
			return object{"$ref": "#/components/schemas/" + name}
		}
		if !taken {
			break
		}
		name = fmt.Sprint(first, n) // two packages have types of this name
	}
	reference := object{"$ref": "#/components/schemas/" + name}
	c := component{of: t, object: object{"type": "object", "additionalProperties": false}}
	s.components[name] = c
	properties, required := object{}, []string{}
	s.fields(t, properties, &required)
	c.object["properties"] = properties
	if len(required) > 0 {
		c.object["required"] = required
	}
	return reference
}

// component is the schema of a struct.
type component struct {
	object

	of reflect.Type
}

// MarshalJSON implements json.Marshaler.
func (c component) MarshalJSON() ([]byte, error) { return json.Marshal(c.object) }

// fields adds the fields of a struct, and those of structs that are embedded in it.
func (s *schemas) fields(t reflect.Type, properties object, required *[]string) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Anonymous && name == "" {
			s.fields(field.Type, properties, required)
			continue
		}
		if !field.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = field.Name
		}
		schema := s.ofType(field.Type)
		if about := field.Tag.Get("doc"); about != "" {
			schema["description"] = about
		}
		if values := field.Tag.Get("enum"); values != "" {
			schema["enum"] = strings.Split(values, ",")
		}
		if format := field.Tag.Get("format"); format != "" {
			schema["format"] = format
		}
		if field.Type.Kind() == reflect.Pointer && !strings.Contains(options, "omitempty") {
			schema = object{"anyOf": []object{schema, {"type": "null"}}}
		}
		properties[name] = schema
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			*required = append(*required, name)
		}
	}
}
