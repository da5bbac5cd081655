package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/uber-go/tally/v4"
	"go.uber.org/dig"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/module"
)

// project is the import path that the module of a module.Requirement is below.
const project = "github.com/opencapture/capture/"

// MissingError says which types no module of a build provides, and which modules would.
type MissingError struct{ Missing []Missing }

// Missing is a type that a build lacks. Module is the module that provides it, by its import path below the project, or ""
// if no Requirement of the build names one.
type Missing struct {
	Type   string
	Module string
}

func (e *MissingError) Error() string {
	lines := make([]string, len(e.Missing))
	for i, missing := range e.Missing {
		lines[i] = fmt.Sprintf("nothing in this build provides %s: include a module that does", missing.Type)
		if missing.Module != "" {
			lines[i] = fmt.Sprintf("nothing in this build provides %s: include the module %s (%s), or one of yours that provides it",
				missing.Type, missing.Module, project+missing.Module)
		}
	}
	return strings.Join(lines, "\n")
}

// requirements are what the modules say they take from others, and what the app itself takes.
func requirements(modules []module.Module) []module.Requirement {
	all := []module.Requirement{
		module.Require[module.Root]("transport"),
		module.Require[*zap.Logger]("modules/observability"),
		module.Require[tally.Scope]("modules/observability"),
	}
	for _, m := range modules {
		all = append(all, m.Requires...)
	}
	return all
}

// explain turns Fx's error about a graph into one for humans. Fx wraps what went wrong in the chain of constructors that led
// to it; what a constructor returned is self-explanatory without.
func explain(err error, modules []module.Module, provided map[string]bool) error {
	var outer, inner dig.Error
	if !errors.As(err, &outer) {
		return err
	}
	root := dig.RootCause(err)
	if !errors.As(root, &inner) {
		return root
	}
	if types := missingTypes(root); len(types) > 0 {
		return missing(types, modules, provided)
	}
	return fmt.Errorf("the modules of this build do not fit together: %w", outer)
}

// missingTypes reads the types off dig's error, which has no exported form.
func missingTypes(root error) []string {
	_, list, found := strings.Cut(root.Error(), "missing type: ")
	if !found {
		if _, list, found = strings.Cut(root.Error(), "missing types: "); !found {
			return nil
		}
	}
	types := strings.Split(list, "; ")
	for i := range types {
		types[i], _, _ = strings.Cut(types[i], " (did you mean")
	}
	return types
}

// missing completes the types that Fx stumbled on by all others that the modules require and nobody provides, so that a build
// is not repaired one error at a time.
func missing(types []string, modules []module.Module, provided map[string]bool) *MissingError {
	e := &MissingError{}
	add := func(m Missing) {
		if !slices.ContainsFunc(e.Missing, func(other Missing) bool { return other.Type == m.Type }) {
			e.Missing = append(e.Missing, m)
		}
	}
	for _, required := range requirements(modules) {
		name := required.Type.String()
		if slices.Contains(types, name) || !provided[name] {
			add(Missing{Type: name, Module: required.Module})
		}
	}
	for _, name := range types {
		add(Missing{Type: name})
	}
	return e
}
