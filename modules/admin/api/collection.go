package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/store"
)

// Collection is the records of a kind in the shared store, as operators see and change them.
type Collection struct {
	// Kind is the kind of the records in the store, such as project. Things is the word for several of them.
	Kind, Things string
	// Path is the path of the list, such as /admin/projects. Name names a record, such as token, and About says in a
	// sentence what the name is.
	Path, Name, About string
	Records           store.Records
	// CheckName returns an error for what cannot be the name of a record.
	CheckName func(name string) error
	// Check returns the fields of a record as they are to be kept, or an error with the faults of the fields (see
	// FaultsOf).
	Check func(name string, fields store.Fields) (store.Fields, error)
	// Refuse returns why a record of this name cannot be written, or nil. It may be nil itself.
	Refuse func(name string) error
}

// Record is a record of a collection.
type Record struct {
	Name   string            `json:"name" doc:"The name of the record: a project's token, or the id that its author gave it."`
	ETag   string            `json:"etag" doc:"The digest of the fields, for If-Match."`
	Fields map[string]string `json:"fields" doc:"The fields, as texts: the same as in files and in Redis."`
	Faults []Fault           `json:"faults,omitempty" doc:"What is wrong with a record that was written by hand. The service does not use it as it is."`
}

// Content is the body of a change.
type Content struct {
	Name   string `json:"name,omitempty" doc:"The name of the record, if it is there the same as in the path."`
	Fields Fields `json:"fields" doc:"All fields of the record, as texts. Fields that are left out have their defaults."`
}

// Fields are the fields of a record in a body.
type Fields map[string]string

// UnmarshalJSON implements json.Unmarshaler. It names the field that is no text.
func (f *Fields) UnmarshalJSON(text []byte) error {
	var values map[string]json.RawMessage
	if json.Unmarshal(text, &values) != nil || values == nil {
		return Problemf(http.StatusBadRequest, "fields must be an object of texts, got %s", cut(text))
	}
	if _, err := members(text); err != nil {
		return err
	}
	*f = make(Fields, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		var value *string
		if json.Unmarshal(values[name], &value) != nil || value == nil {
			return Problemf(http.StatusBadRequest, "the field %q must be a text, as \"true\" and \"a, b\" are, got %s",
				name, cut(values[name]))
		}
		(*f)[name] = *value
	}
	return nil
}

// cut returns the beginning of a text.
func cut(text []byte) string {
	const most = 40
	if len(text) <= most {
		return string(text)
	}
	return strings.ToValidUTF8(string(text[:most]), "") + "..."
}

// Endpoints returns the endpoints of the collection: list, get, put, delete.
func (c *Collection) Endpoints(a *API) []endpoint.Endpoint {
	one := c.Path + "/{" + c.Name + "}"
	name := endpoint.Parameter{In: endpoint.Path, Name: c.Name, About: c.About}
	record := func(status int, about string) endpoint.Answer {
		answer := endpoint.Answer{
			Status: status, About: about, Of: Record{},
			Headers: map[string]string{"ETag": "The digest of the fields, for If-Match."},
		}
		if status == http.StatusCreated {
			answer.Headers["Location"] = "The path of the record."
		}
		return answer
	}
	changes := append([]endpoint.Parameter{name}, Preconditions()...)
	unavailable := http.StatusServiceUnavailable
	return []endpoint.Endpoint{
		a.Endpoint(Operation{
			Pattern: "GET " + c.Path, About: "The " + c.Things + " in the shared store, in the order of their names.",
			Access: endpoint.Reader, Parameters: Paging(), Handle: c.list,
			Answers:  []endpoint.Answer{{Status: http.StatusOK, About: "A page of the list.", Of: Page[Record]{}}},
			Problems: []int{unavailable},
		}),
		a.Endpoint(Operation{
			Pattern: "GET " + one, About: "One " + c.Kind + ".", Access: endpoint.Reader, Handle: c.get,
			Parameters: []endpoint.Parameter{name}, Answers: []endpoint.Answer{record(http.StatusOK, "The record.")},
			Problems: []int{http.StatusNotFound, unavailable},
		}),
		a.Endpoint(Operation{
			Pattern: "PUT " + one, About: "Makes a " + c.Kind + ", or replaces all of its fields.",
			Access: endpoint.Operator, Body: Content{}, Handle: c.put, Parameters: changes,
			Answers: []endpoint.Answer{
				record(http.StatusOK, "The record was replaced."), record(http.StatusCreated, "The record was made."),
			},
			Problems: []int{
				http.StatusConflict, http.StatusPreconditionFailed, http.StatusUnprocessableEntity,
				http.StatusPreconditionRequired,
			},
		}),
		a.Endpoint(Operation{
			Pattern: "DELETE " + one, About: "Removes a " + c.Kind + ".", Access: endpoint.Operator, Handle: c.remove,
			Parameters: changes,
			Answers:    []endpoint.Answer{{Status: http.StatusNoContent, About: "The record was removed."}},
			Problems: []int{
				http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed,
				http.StatusPreconditionRequired,
			},
		}),
	}
}

// show returns a record as operators see it.
func (c *Collection) show(name string, fields store.Fields) Record {
	r := Record{Name: name, ETag: Tag(fields), Fields: fields}
	if _, err := c.Check(name, fields); err != nil {
		r.Faults = FaultsOf(err)
	}
	return r
}

func (c *Collection) list(call *Call) (*Answer, error) {
	limit, err := call.Limit()
	if err != nil {
		return nil, err
	}
	var after string
	if _, err := call.After(&after); err != nil {
		return nil, err
	}
	names, err := c.Records.List(call.Context(), c.Kind, after, limit+1)
	if err != nil {
		return nil, err
	}
	page := Page[Record]{Items: []Record{}}
	if len(names) > limit {
		names = names[:limit]
		page.Next = Next(names[limit-1])
	}
	for _, name := range names {
		fields, err := c.Records.Get(call.Context(), c.Kind, name)
		if err != nil {
			return nil, err
		}
		if len(fields) > 0 { // else it was removed just now
			page.Items = append(page.Items, c.show(name, fields))
		}
	}
	return OK(page), nil
}

// find returns the name that the path has, and the fields of the record, which are nil if there is none.
func (c *Collection) find(call *Call) (name string, fields store.Fields, err error) {
	name = call.Path(c.Name)
	if err := c.CheckName(name); err != nil {
		return "", nil, Problemf(http.StatusBadRequest, "%q in the path: %s", name, err)
	}
	fields, err = c.Records.Get(call.Context(), c.Kind, name)
	if len(fields) == 0 {
		fields = nil
	}
	return name, fields, err
}

func (c *Collection) missing(name string) error {
	return Problemf(http.StatusNotFound, "the shared store has no %s %q: see %s", c.Kind, name, c.Path)
}

func (c *Collection) get(call *Call) (*Answer, error) {
	name, fields, err := c.find(call)
	if err != nil {
		return nil, err
	}
	if fields == nil {
		return nil, c.missing(name)
	}
	r := c.show(name, fields)
	return &Answer{Status: http.StatusOK, Body: r, ETag: r.ETag}, nil
}

func (c *Collection) put(call *Call) (*Answer, error) {
	var content Content
	if err := call.Decode(&content); err != nil {
		return nil, err
	}
	if content.Fields == nil {
		// It would give a project that is disabled all of its defaults back.
		return nil, Problemf(http.StatusBadRequest, `the body must have fields, such as {"fields": {}}: they replace `+
			"all that the record has")
	}
	name, before, err := c.find(call)
	if err != nil {
		return nil, err
	}
	if content.Name != "" && content.Name != name {
		return nil, Problemf(http.StatusBadRequest, "the body names %q, and the path %q: leave the name out of the "+
			"body", content.Name, name)
	}
	if err := call.Match(tagOf(before)); err != nil {
		return nil, err
	}
	if c.Refuse != nil {
		if err := c.Refuse(name); err != nil {
			return nil, err
		}
	}
	after, err := c.Check(name, store.Fields(content.Fields))
	if err != nil {
		return nil, Invalid(err)
	}
	if err := c.Change(call, name, before, after); err != nil {
		return nil, err
	}
	r := c.show(name, after)
	if before != nil {
		return &Answer{Status: http.StatusOK, Body: r, ETag: r.ETag}, nil
	}
	return &Answer{Status: http.StatusCreated, Body: r, ETag: r.ETag, Location: c.Path + Path(name)}, nil
}

func (c *Collection) remove(call *Call) (*Answer, error) {
	name, before, err := c.find(call)
	if err != nil {
		return nil, err
	}
	if before == nil && c.Refuse != nil {
		if err := c.Refuse(name); err != nil {
			return nil, err
		}
	}
	if before == nil {
		return nil, c.missing(name)
	}
	if err := call.Match(tagOf(before)); err != nil {
		return nil, err
	}
	if err := c.Change(call, name, before, nil); err != nil {
		return nil, err
	}
	return &Answer{Status: http.StatusNoContent}, nil
}

// tagOf returns the tag of a record, or "" for none.
func tagOf(fields store.Fields) string {
	if fields == nil {
		return ""
	}
	return Tag(fields)
}

// Change puts the record after in the place of the record before, and notes it in the audit log. Nil stands for none.
// If both are the same, it does nothing.
func (c *Collection) Change(call *Call, name string, before, after store.Fields) error {
	if before != nil && maps.Equal(before, after) {
		return nil
	}
	subject := audit.Subject{Kind: c.Kind, Name: name}
	if before != nil {
		subject.Before = audit.Conceal(before)
	}
	if after != nil {
		subject.After = audit.Conceal(after)
	}
	return call.Change(subject, func(ctx context.Context) error {
		err := c.Records.Put(ctx, c.Kind, name, before, after)
		if errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("the %s %q: %w", c.Kind, name, err)
		}
		return err
	})
}
