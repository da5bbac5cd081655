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

// project is the import path of this project. The module of a module.Requirement is given by its path below it.
const project = "github.com/opencapture/capture/"

// MissingError lists the types that no module of a build provides, and the modules that provide them.
type MissingError struct{ Missing []Missing }

// Missing is a type that a build lacks. Module is the import path, below the project, of the module that provides it.
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

// requirements lists the types that the modules declare as required, and the types that the app itself takes.
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

// explain turns Fx's error about a graph into an error for people. Fx wraps the error of a constructor in the chain of
// constructors that led to it. The constructor's own error is clear without that chain.
//
// Fx offers no list of the missing types. It reports the types that are provided, and the modules declare the types
// that they require. For a missing type that no module has declared, explain keeps Fx's own words, which name the
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
	// The error around the root cause names the constructor. The errors around that one tell how Fx got there.
	for inner := errors.Unwrap(err); inner != nil && errors.Unwrap(inner) != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return fmt.Errorf("the modules of this build do not fit together: %w", err)
}

// missing returns all types that the modules require and nobody provides, so that a build need not be repaired one
// error at a time. When Fx has refused a constructor, it has not looked at the later ones, so missing cannot know what
// they provide and returns nil.
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
