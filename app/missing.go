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

// Missing is a type that a build lacks. Module is the module that provides it, by its import path below the project.
type Missing struct {
	Type   string
	Module string
}

func (e *MissingError) Error() string {
	lines := make([]string, len(e.Missing))
	for i, missing := range e.Missing {
		lines[i] = fmt.Sprintf(
			"nothing in this build provides %s: include the module %s (%s), or one of yours that provides it",
			missing.Type, missing.Module, project+missing.Module)
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
//
// Fx does not say in a form of its own which types are missing. It says which ones are provided, and the modules say
// which ones they require. A type that is missing without being declared is left to the words of Fx, which name the
// constructor.
func explain(err error, modules []module.Module, events *eventLog) error {
	var fx dig.Error
	if !errors.As(err, &fx) {
		return err
	}
	root := dig.RootCause(err)
	if !errors.As(root, &fx) {
		return root
	}
	if missing := missing(modules, events); missing != nil {
		return missing
	}
	// The error around the root cause names the constructor, and those around it how Fx has come there.
	for inner := errors.Unwrap(err); inner != nil && errors.Unwrap(inner) != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return fmt.Errorf("the modules of this build do not fit together: %w", err)
}

// missing returns all types that the modules require and nobody provides, so that a build is not repaired one error
// at a time. When Fx could not take a constructor, it did not look at those behind it, and nobody knows what they
// provide.
func missing(modules []module.Module, events *eventLog) *MissingError {
	e := &MissingError{}
	for _, required := range requirements(modules) {
		m := Missing{Type: required.Type.String(), Module: required.Module}
		known := slices.ContainsFunc(e.Missing, func(other Missing) bool { return other.Type == m.Type })
		if !known && !events.provided[m.Type] {
			e.Missing = append(e.Missing, m)
		}
	}
	if events.refused || len(e.Missing) == 0 {
		return nil
	}
	return e
}
