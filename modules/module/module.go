package module

import (
	"reflect"

	"go.uber.org/fx"

	"github.com/opencapture/capture/configs"
)

// Module is one part of the service, which a build includes or leaves out.
//
// Name is the one word to grep for: it names the module's directory, its fx.Module, its configuration section and its
// logger, and is the prefix of its metrics.
type Module struct {
	Name string

	// Config holds the section's defaults, a struct value, or nil for a module without a section. The graph is supplied
	// with the section that the service starts with, as a value of the same type. A module with live settings takes
	// *configs.Live instead and follows its section there (see configs.Section).
	Config any

	// Rules check what the section cannot check alone, such as what it must have in common with another module's
	// section. They run for every configuration that is loaded, also by "capture config validate".
	Rules []configs.Rule

	// Probes look at the machine that the service is to run on, such as at its directories. They report what would keep
	// the module from working as configured. Only "capture config validate" runs them. They change nothing and open no
	// connection.
	Probes []configs.Rule

	// Options provides the module's constructors and hooks.
	Options fx.Option

	// Requires lists the types that the module takes from other modules. If a build lacks such a type, the error names
	// the module to include.
	Requires []Requirement

	// Metrics describes the metrics that the module makes in its tally.Scope. Collectors describe their own metrics.
	Metrics Metrics

	// Commands are added to the command line of every build that includes the module.
	Commands []Command
}

// Metrics holds for each metric, by its name in the scope of its module, a sentence that says what the metric counts
// or measures: "messages_acked_total": "Messages that Kafka has acknowledged." The sentence is the metric's help in
// every scrape.
type Metrics map[string]string

// AllMetrics joins the Metrics of modules. The name of a metric then begins with the name of its module, as in
// kafka_messages_acked_total. The app supplies the result to the graph.
func AllMetrics(modules []Module) Metrics {
	all := Metrics{}
	for _, m := range modules {
		for name, sentence := range m.Metrics {
			all[m.Name+"_"+name] = sentence
		}
	}
	return all
}

// Requirement says which module provides a type.
type Requirement struct {
	Type   reflect.Type
	Module string
}

// Require says that T comes from the named module, given by its import path below the project, such as "modules/kafka".
func Require[T any](module string) Requirement {
	return Requirement{Type: reflect.TypeFor[T](), Module: module}
}

// Root is the part that the graph is built for. Exactly one module provides it (transport, in the stock build). The app
// asks for the root, and Fx builds everything that the root needs.
type Root interface{ Root() }

// Background is a part that runs beside the root although the root does not need it, such as the operators' listener.
// Background members start before the root's own parts and stop after them.
type Background interface{ Background() }

// AsBackground annotates a constructor so that its result joins the background members.
func AsBackground(constructor any) any {
	return fx.Annotate(constructor, fx.As(new(Background)), fx.ResultTags(`group:"background"`))
}

// MemoryLimit is how many bytes the process may take, by what stands outside of the modules: GOMEMLIMIT,
// app.memory_limit or the cgroup. 0: nobody has said. The app supplies it to the graph, for modules whose budgets are a
// share of it (see configs.MemoryBudgeter).
type MemoryLimit int64

// StartFact is a line that the service prints for a person when it has started, such as where it listens. Facts are
// printed by ascending Rank. Text is called once, after every start hook has run. An empty text prints nothing.
type StartFact struct {
	Rank int
	Name string
	Text func() string
}

// AsStartFact annotates a constructor that returns a StartFact.
func AsStartFact(constructor any) any {
	return fx.Annotate(constructor, fx.ResultTags(`group:"start_facts"`))
}
