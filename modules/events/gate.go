package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencapture/capture/configs"
)

// Caller is who sends a request, as far as that is known when the gates are asked. Like an Event's, its
// strings may alias the request.
type Caller struct {
	// Token is the project's API key; empty while it is not known.
	Token string
	// Project is who the token belongs to. The gate that knows writes it.
	Project *Project
	// ClientIP is the client's address as text.
	ClientIP string
	// Method and Path are the request's.
	Method, Path string
	// Header returns a header's value, or "".
	Header func(name string) string
	// Config is the configuration that the request is judged by.
	Config *configs.View
}

// Gate decides whether a caller may send at all. It is asked when the head of a request has been read, before the
// body is: with the token where the head has it. Where the body has the token, the gate is asked again with that,
// before the events meet the stages. An error refuses the request; its Code says how, and with a code other than
// Internal its text is the client's to read. Admit must be safe for concurrent use and keeps nothing of the caller.
type Gate interface {
	Phase() Phase
	Name() string
	Admit(ctx context.Context, caller *Caller) error
}

// Gates is the gates of a build, in the order of (Phase, Name).
type Gates []Gate

// NewGates orders the gates. Two gates with the same phase and name are an error.
func NewGates(gates ...Gate) (Gates, error) {
	ordered := slices.Clone(gates)
	slices.SortStableFunc(ordered, func(a, b Gate) int {
		return cmp.Or(cmp.Compare(a.Phase(), b.Phase()), cmp.Compare(a.Name(), b.Name()))
	})
	var faults []error
	for i := 1; i < len(ordered); i++ {
		if a, b := ordered[i-1], ordered[i]; a.Phase() == b.Phase() && a.Name() == b.Name() {
			faults = append(faults, fmt.Errorf("two gates are named %q in phase %d: rename one or leave it out",
				a.Name(), a.Phase()))
		}
	}
	return ordered, errors.Join(faults...)
}

// Admit asks the gates, one after the other, until one refuses the caller.
func (g Gates) Admit(ctx context.Context, caller *Caller) error {
	for _, gate := range g {
		if err := gate.Admit(ctx, caller); err != nil {
			return err
		}
	}
	return nil
}
