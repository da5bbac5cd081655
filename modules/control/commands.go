package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/client"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/terminal"
)

// field is a field of a record, as the help shows it.
type field struct{ name, about string }

// recordCommands makes the commands about the records of a collection.
type recordCommands struct {
	// word names the command and one record, path is that of the collection, and argument names a record in the help.
	word, path, argument string
	// about says what the records are, and example is one for set: the name and the fields.
	about, example string
	fields         []field
	// checkName returns an error for what cannot be the name of a record.
	checkName func(name string) error
	// check returns an error with the faults of the fields, or nil.
	check func(name string, fields map[string]string) error
	// columns are those of the list behind the name. Each is a field.
	columns []string
}

// command returns the command with those below it.
func (c *recordCommands) command(more ...module.Command) module.Command {
	name, _, _ := strings.Cut(c.example, " ")
	return module.Command{
		Use: c.word, Short: "Look at " + c.word + "s, set them, or remove them",
		Long: c.about + `

The commands ask a running service, at admin.listen of the configuration or at --server, with admin.token of the
configuration. Every change is in the service's audit log.

The fields are:
` + c.reference(),
		Example:  "  capture " + c.word + " set " + c.example,
		Commands: append([]module.Command{c.list(), c.show(name), c.set(), c.remove(name)}, more...),
	}
}

// reference lists the fields for the help.
func (c *recordCommands) reference() string {
	var text strings.Builder
	for _, f := range c.fields {
		fmt.Fprintf(&text, "  %-15s %s\n", f.name, wrap(f.about))
	}
	return strings.TrimSuffix(text.String(), "\n")
}

// wrap breaks a text into lines that stand behind the name of a field.
func wrap(text string) string {
	const width, indent = 100, "                  "
	var out strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case column > 0 && column+1+len(word) > width:
			out.WriteString("\n" + indent)
			column = 0
		case column > 0:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += len(word)
	}
	return out.String()
}

func (c *recordCommands) list() module.Command {
	var ask client.Flags
	return module.Command{
		Use: "list", Short: "List the " + c.word + "s in the shared store", Output: module.Table, Flags: ask.Add,
		Example: "  capture " + c.word + " list --output json",
		Run: func(use module.Invocation, own client.Own) error {
			service, err := ask.Client(own)
			if err != nil {
				return err
			}
			list := use.List(slices.Concat([]string{c.argument}, c.columns, []string{"faults"})...)
			err = c.each(use.Context, service, func(r *api.Record) error {
				cells := []any{r.Name}
				for _, column := range c.columns {
					cells = append(cells, r.Fields[column])
				}
				return list.Add(r, append(cells, faultsOf(r.Faults))...)
			})
			if err != nil {
				return err
			}
			return list.Flush()
		},
	}
}

// each calls visit with every record, in the order of their names.
func (c *recordCommands) each(
	ctx context.Context, service *client.Client, visit func(*api.Record) error,
) error {
	for query := "?limit=1000"; ; {
		var page api.Page[api.Record]
		if _, err := service.Get(ctx, c.path+query, &page); err != nil {
			return err
		}
		for i := range page.Items {
			if err := visit(&page.Items[i]); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		query = "?limit=1000&after=" + url.QueryEscape(page.Next)
	}
}

// faultsOf writes faults in a line.
func faultsOf(faults []api.Fault) string {
	texts := make([]string, len(faults))
	for i, fault := range faults {
		texts[i] = strings.TrimPrefix(fault.Field+": "+fault.Message, ": ")
	}
	return strings.Join(texts, "; ")
}

func (c *recordCommands) show(example string) module.Command {
	var ask client.Flags
	return module.Command{
		Use: "show " + c.argument, Short: "Show the fields of a " + c.word, Output: module.Table, Flags: ask.Add,
		Example: "  capture " + c.word + " show " + example,
		Run: func(use module.Invocation, own client.Own) error {
			if err := c.named(use.Args[0]); err != nil {
				return err
			}
			service, err := ask.Client(own)
			if err != nil {
				return err
			}
			record, err := c.get(use.Context, service, use.Args[0])
			if err != nil {
				return err
			}
			if record == nil {
				return fmt.Errorf("the shared store has no %s %q: capture %s list shows those that there are", c.word,
					use.Args[0], c.word)
			}
			if use.Output == module.JSON {
				return use.List().Add(record)
			}
			list := use.List("field", "value")
			for _, f := range c.order(record.Fields) {
				if err := list.Add(nil, f, record.Fields[f]); err != nil {
					return err
				}
			}
			if err := list.Flush(); err != nil {
				return err
			}
			if len(record.Faults) > 0 {
				use.Hint("the record has faults, and the service does not use it as it is: %s", faultsOf(record.Faults))
			}
			return nil
		},
	}
}

// order returns the names of the fields in the order of the reference; unknown ones come last.
func (c *recordCommands) order(fields map[string]string) (names []string) {
	for _, f := range c.fields {
		if _, ok := fields[f.name]; ok {
			names = append(names, f.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// get returns a record, or nil if there is none.
func (c *recordCommands) get(ctx context.Context, service *client.Client, name string) (*api.Record, error) {
	var record api.Record
	_, err := service.Get(ctx, c.path+api.Path(name), &record)
	var problem *api.Problem
	if errors.As(err, &problem) && problem.Status == http.StatusNotFound {
		return nil, nil //nolint:nilnil // that there is none is an answer
	}
	return &record, err
}

func (c *recordCommands) set() module.Command {
	var ask client.Flags
	var dry bool
	return module.Command{
		Use: "set " + c.argument + " FIELD=VALUE...", Short: "Make a " + c.word + ", or change fields of it",
		Long: `Makes a ` + c.word + `, or changes the given fields of one and leaves the others as they are. FIELD=
without a value removes the field, so that its default holds. It prints what changes: lines that begin with - are gone,
those with + are new. Nothing is changed if a field has a fault, or if somebody else has changed the ` + c.word + `
meanwhile.`,
		Example: "  capture " + c.word + " set " + c.example,
		Flags: func(flags *module.Flags) {
			ask.Add(flags)
			flags.BoolVar(&dry, "dry-run", false, "only print what would change")
		},
		Values: map[string]any{"FIELD=VALUE": func(module.Invocation) (words []string, err error) {
			for _, f := range c.fields {
				words = append(words, f.name+"=")
			}
			return words, nil
		}},
		Run: func(use module.Invocation, own client.Own) error {
			if err := c.named(use.Args[0]); err != nil {
				return err
			}
			edits, err := c.parse(use.Args[1:])
			if err != nil {
				return err
			}
			service, err := ask.Client(own)
			if err != nil {
				return err
			}
			return c.change(use, service, use.Args[0], edits, dry)
		},
	}
}

// named returns an error if no record can have the name.
func (c *recordCommands) named(name string) error {
	if err := c.checkName(name); err != nil {
		return module.Misusef("%s %q: %s", c.argument, name, err)
	}
	return nil
}

// edit is a field with its new value; empty: the field is removed.
type edit struct{ name, value string }

// parse reads FIELD=VALUE pairs.
func (c *recordCommands) parse(args []string) (edits []edit, err error) {
	var known []string
	for _, f := range c.fields {
		known = append(known, f.name)
	}
	for _, arg := range args {
		name, value, found := strings.Cut(arg, "=")
		switch {
		case !found:
			return nil, module.Misusef("a field is set as FIELD=VALUE, got %q", arg)
		case !slices.Contains(known, name):
			if nearest := configs.Nearest(name, known); nearest != "" {
				return nil, module.Misusef("a %s has no field %q: did you mean %s?", c.word, name, nearest)
			}
			return nil, module.Misusef("a %s has no field %q: it has %s", c.word, name, strings.Join(known, ", "))
		case isEdited(edits, name):
			return nil, module.Misusef("%s is given twice", name)
		}
		edits = append(edits, edit{name, strings.TrimSpace(value)})
	}
	return edits, nil
}

// isEdited reports whether there is an edit of the field.
func isEdited(edits []edit, field string) bool {
	return slices.ContainsFunc(edits, func(e edit) bool { return e.name == field })
}

// change makes the edits and prints what they change.
func (c *recordCommands) change(
	use module.Invocation, service *client.Client, name string, edits []edit, dry bool,
) error {
	before, err := c.get(use.Context, service, name)
	if err != nil {
		return err
	}
	old, header := map[string]string{}, []string{"If-None-Match", "*"}
	if before != nil {
		old, header = before.Fields, []string{"If-Match", before.ETag}
	}
	fields := maps.Clone(old)
	for _, e := range edits {
		fields[e.name] = e.value
		if e.value == "" {
			delete(fields, e.name)
		}
	}
	if err := c.check(name, fields); err != nil {
		faults := api.FaultsOf(err)
		if before == nil || slices.ContainsFunc(faults, func(f api.Fault) bool { return isEdited(edits, f.Field) }) {
			return module.Misusef("%s", faultsOf(faults))
		}
		return errors.New(faultsOf(faults))
	}
	if dry {
		return c.diff(use, old, fields)
	}
	answer, err := service.Do(use.Context, client.Request{
		Method: http.MethodPut, Path: c.path + api.Path(name), Body: api.Content{Fields: fields}, Header: header,
	})
	if err != nil {
		return explained(err)
	}
	var after api.Record
	if err := answer.Decode(&after); err != nil {
		return err
	}
	return c.diff(use, old, after.Fields)
}

// explained adds the faults to the error, and says what to do if somebody else was faster.
func explained(err error) error {
	var problem *api.Problem
	if !errors.As(err, &problem) {
		return err
	}
	switch {
	case len(problem.Faults) > 0:
		return errors.New(faultsOf(problem.Faults))
	case problem.Status == http.StatusPreconditionFailed:
		return errors.New("somebody else has changed it meanwhile, and nothing was done: look at it, and do it again")
	}
	return err
}

// diff prints what has changed.
func (c *recordCommands) diff(use module.Invocation, before, after map[string]string) error {
	all := maps.Clone(before)
	maps.Copy(all, after)
	var text strings.Builder
	for _, name := range c.order(all) {
		old, was := before[name]
		value, is := after[name]
		if was == is && old == value {
			continue
		}
		if was {
			fmt.Fprintf(&text, "- %s=%s\n", name, old)
		}
		if is {
			fmt.Fprintf(&text, "+ %s=%s\n", name, value)
		}
	}
	if text.Len() == 0 {
		use.Hint("nothing to change: the %s is so already", c.word)
	}
	_, err := terminal.NewWriter(use.Out).Write([]byte(text.String()))
	return err
}

func (c *recordCommands) remove(example string) module.Command {
	var ask client.Flags
	return module.Command{
		Use: "delete " + c.argument, Short: "Remove a " + c.word + " from the shared store", Flags: ask.Add,
		Example: "  capture " + c.word + " delete " + example,
		Run: func(use module.Invocation, own client.Own) error {
			if err := c.named(use.Args[0]); err != nil {
				return err
			}
			service, err := ask.Client(own)
			if err != nil {
				return err
			}
			before, err := c.get(use.Context, service, use.Args[0])
			if err != nil {
				return err
			}
			if before == nil {
				return fmt.Errorf("the shared store has no %s %q: capture %s list shows those that there are", c.word,
					use.Args[0], c.word)
			}
			_, err = service.Do(use.Context, client.Request{
				Method: http.MethodDelete, Path: c.path + api.Path(use.Args[0]),
				Header: []string{"If-Match", before.ETag},
			})
			if err != nil {
				return explained(err)
			}
			return c.diff(use, before.Fields, nil)
		},
	}
}
