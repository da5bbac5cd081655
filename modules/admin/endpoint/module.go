package endpoint

import "go.uber.org/fx"

// As annotates a constructor that returns an Endpoint so that the operators' listener serves it.
func As(constructor any) any { return fx.Annotate(constructor, fx.ResultTags(`group:"endpoints"`)) }

// AsEach is As for a constructor that returns a []Endpoint.
func AsEach(constructor any) any {
	return fx.Annotate(constructor, fx.ResultTags(`group:"endpoints,flatten"`))
}
