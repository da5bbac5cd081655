package endpoint

import "go.uber.org/fx"

// As annotates a constructor that returns an Endpoint so that the operators' listener serves it.
func As(constructor any) any { return fx.Annotate(constructor, fx.ResultTags(`group:"endpoints"`)) }
