package route

import "go.uber.org/fx"

// As annotates a constructor that returns a []Route, so that the server (transport) serves these routes. The
// constructor may return an error as well.
func As(constructor any) any {
	return fx.Annotate(constructor, fx.ResultTags(`group:"routes,flatten"`))
}
