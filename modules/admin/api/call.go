package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/admin/endpoint"
)

// Call is one request of an operation.
type Call struct {
	api     *API
	request *http.Request
	query   url.Values
}

// newCall reads the query.
func newCall(a *API, op *Operation, r *http.Request) (*Call, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, Problemf(http.StatusBadRequest, "the query cannot be read: %s", err)
	}
	var known []string
	for i := range op.Parameters {
		p := &op.Parameters[i]
		if p.In != endpoint.Query {
			continue
		}
		known = append(known, p.Name)
		if err := check(p, query[p.Name]); err != nil {
			return nil, err
		}
	}
	for name := range query {
		if !slices.Contains(known, name) {
			return nil, unknown("parameter of the query", name, known)
		}
	}
	return &Call{api: a, request: r, query: query}, nil
}

// check returns an error for values that the parameter cannot have.
func check(p *endpoint.Parameter, values []string) error {
	switch {
	case len(values) > 1:
		return Problemf(http.StatusBadRequest, "%s stands in the query %d times: give it once", p.Name, len(values))
	case len(values) == 0 && p.Required:
		return Problemf(http.StatusBadRequest, "%s is missing in the query: %s", p.Name, p.About)
	case len(values) == 1 && len(p.Values) > 0 && !slices.Contains(p.Values, values[0]):
		return Problemf(http.StatusBadRequest, "%s must be one of %s, got %q", p.Name, strings.Join(p.Values, ", "),
			values[0])
	}
	return nil
}

func unknown(what, name string, known []string) *Problem {
	if nearest := configs.Nearest(name, known); nearest != "" {
		return Problemf(http.StatusBadRequest, "there is no %s %q: did you mean %s?", what, name, nearest)
	}
	if len(known) == 0 {
		return Problemf(http.StatusBadRequest, "there is no %s %q", what, name)
	}
	return Problemf(http.StatusBadRequest, "there is no %s %q: there is %s", what, name, strings.Join(known, ", "))
}

// Context is the context of the request. It ends when the client leaves and when the service stops.
func (c *Call) Context() context.Context { return c.request.Context() }

// Path returns a parameter of the path, decoded.
func (c *Call) Path(name string) string { return c.request.PathValue(name) }

// Query returns a parameter of the query, or "".
func (c *Call) Query(name string) string { return c.query.Get(name) }

// Limit returns how many items a page is to have at most.
func (c *Call) Limit() (int, error) {
	text := c.Query(limitName)
	if text == "" {
		return usualLimit, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maxLimit {
		return 0, Problemf(http.StatusBadRequest, "limit must be a number from 1 to %d, got %q", maxLimit, text)
	}
	return limit, nil
}

// Page is a page of a list.
type Page[T any] struct {
	Items []T `json:"items" doc:"The items of the page, in order."`
	// Next is what the next page has as its parameter after.
	Next string `json:"next,omitempty" doc:"The value of after for the next page. Absent: this page is the last."`
}

// After reads where the page begins into key, which is a pointer to what the page before was given to Next. It returns
// false for the first page.
func (c *Call) After(key any) (bool, error) {
	text := c.Query(afterName)
	if text == "" {
		return false, nil
	}
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(decoded, key)
	}
	if err != nil {
		return false, Problemf(http.StatusBadRequest, "after must be the word next of the page before, got %q", text)
	}
	return true, nil
}

// Next returns the word that leads to the page behind the key, which has a form in JSON.
func Next(key any) string {
	text, err := json.Marshal(key)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// Decode reads the body into a pointer to a struct.
func (c *Call) Decode(into any) error {
	if given := c.request.Header.Get("Content-Type"); given != "" {
		if kind, _, err := mime.ParseMediaType(given); err != nil || kind != "application/json" {
			return Problemf(http.StatusUnsupportedMediaType, "the body must be application/json, got %q", given)
		}
	}
	body, err := io.ReadAll(c.request.Body) // the listener bounds it
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	if err := checkObject(body, fields(reflect.TypeOf(into))); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(into)
	switch {
	case errors.Is(err, io.EOF):
		err = errNoJSON
	case err == nil:
		if _, more := decoder.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the JSON value")
		}
	}
	if err == nil {
		return nil
	}
	if name, found := strings.CutPrefix(err.Error(), "json: unknown field "); found {
		if name, unquoted := strconv.Unquote(name); unquoted == nil {
			return unknown("field", name, fields(reflect.TypeOf(into)))
		}
	}
	var problem *Problem
	if errors.As(err, &problem) {
		return problem
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return Problemf(http.StatusBadRequest, "the body: %s must be %s, got a JSON %s", wrong.Field, named(wrong.Type),
			wrong.Value)
	}
	return Problemf(http.StatusBadRequest, "the body cannot be read as JSON: %s", err)
}

// checkObject finds what encoding/json lets pass, and what changes another thing than its sender means: bytes that are
// no text, null in the place of the object, a name that stands twice, and a name in another case.
func checkObject(body []byte, known []string) error {
	if !utf8.Valid(body) {
		return Problemf(http.StatusBadRequest, "the body must be UTF-8")
	}
	if string(bytes.TrimSpace(body)) == "null" {
		return Problemf(http.StatusBadRequest, "the body must be an object, got null")
	}
	names, err := members(body)
	for _, name := range names {
		if !slices.Contains(known, name) {
			return unknown("field", name, known)
		}
	}
	return err
}

// members returns the names of an object's members, and an error if one of them stands there twice. What is no object
// has none. It leaves faults of the syntax to others.
func members(object []byte) (names []string, err error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if first, err := decoder.Token(); err != nil || first != json.Delim('{') {
		return nil, nil //nolint:nilerr // it is no object
	}
	for decoder.More() {
		name, isName := "", false
		if token, err := decoder.Token(); err == nil {
			name, isName = token.(string)
		}
		var value json.RawMessage
		if !isName || decoder.Decode(&value) != nil {
			break
		}
		if slices.Contains(names, name) {
			return names, Problemf(http.StatusBadRequest, "the field %q stands in the body twice: give it once", name)
		}
		names = append(names, name)
	}
	return names, nil //nolint:nilerr // a fault of the syntax is told by who decodes the whole
}

// refuseBody returns an error if the request has a body that says something. It is for operations that take none: who
// sends one expects that it counts.
func (c *Call) refuseBody() error {
	const most = 64
	body, err := io.ReadAll(io.LimitReader(c.request.Body, most))
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	if body = bytes.TrimSpace(body); len(body) > 0 && string(body) != "{}" {
		return Problemf(http.StatusBadRequest, "no body is taken here: leave it out")
	}
	return nil
}

// named returns the word of JSON for a type.
func named(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "an array"
	default:
		return "a whole number"
	}
}

// fields returns the names of the fields of a struct in JSON, and of the structs in it.
func fields(t reflect.Type) (names []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		field := t.Field(i)
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
			names = append(names, fields(field.Type)...)
		}
	}
	return names
}

// Tag returns the ETag of a value, which has a form in JSON.
func Tag(value any) string {
	text, err := json.Marshal(value) // the keys of a map are in order
	if err != nil {
		panic(err)
	}
	digest := sha256.Sum256(text)
	return `"` + hex.EncodeToString(digest[:16]) + `"`
}

// Match compares the preconditions of a change with the record that is there. tag is empty if there is none.
func (c *Call) Match(tag string) error {
	match, none := c.request.Header.Values("If-Match"), c.request.Header.Values("If-None-Match")
	switch {
	case len(match) > 0 && len(none) > 0:
		return Problemf(http.StatusBadRequest, "give If-Match, to change what is there, or If-None-Match: *, to make "+
			"something new, and not both")
	case len(match) > 0:
		if tag != "" && matches(match, tag) {
			return nil
		}
		if tag == "" {
			return Problemf(http.StatusPreconditionFailed, "there is no such record: give If-None-Match: * to make it")
		}
		return Problemf(http.StatusPreconditionFailed, "the record has changed, its ETag is %s: look at it again, and "+
			"make the change to what is there now", tag)
	case len(none) > 0:
		if !slices.Equal(none, []string{"*"}) {
			return Problemf(http.StatusBadRequest, "If-None-Match must be *, which means that there is no record yet")
		}
		if tag != "" {
			return Problemf(http.StatusPreconditionFailed, "the record exists already, its ETag is %s: give it in "+
				"If-Match to change the record", tag)
		}
		return nil
	}
	return Problemf(http.StatusPreconditionRequired, "give If-Match with the ETag of the record that you have seen, "+
		"or If-None-Match: * to make a new one; If-Match: * takes whatever is there")
}

// matches reports whether one of the tags in the headers is the tag, or *.
func matches(headers []string, tag string) bool {
	for _, header := range headers {
		for one := range strings.SplitSeq(header, ",") {
			if one = strings.TrimSpace(one); one == tag || one == "*" {
				return true
			}
		}
	}
	return false
}

// Change makes a change, and notes it in the audit log before and after. If it cannot be noted before, it is not made.
func (c *Call) Change(of audit.Subject, apply func(context.Context) error) error {
	return c.ChangeTo(of, func(ctx context.Context) (any, error) { return nil, apply(ctx) })
}

// ChangeTo is Change for a change whose outcome is not known before: apply returns the state that it has led to.
func (c *Call) ChangeTo(of audit.Subject, apply func(context.Context) (after any, err error)) error {
	noted, err := c.api.audit.Begin(c.request, of)
	if err != nil {
		return err
	}
	// A change that has begun is made, also if the client leaves.
	ctx := context.WithoutCancel(c.Context())
	ended := false
	defer func() {
		if !ended {
			noted.End(ctx, errors.New("the service panicked: nobody knows whether it was made"))
		}
	}()
	after, err := apply(ctx)
	ended = true
	noted.EndWith(ctx, after, err)
	return err
}
