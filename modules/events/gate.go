package events

import (
	"context"

	"github.com/opencapture/capture/configs"
)

// Caller is the sender of a request, as far as the service knows it when it asks the gates. Like an Event's, its
// strings may alias the request.
type Caller struct {
	// Token is the project's API key. It is empty while the service does not know it.
	Token string
	// Project is the owner of the token. The gate that knows the owner sets it.
	Project *Project
	// ClientIP is the client's address as text.
	ClientIP string
	// Method and Path are those of the request.
	Method, Path string
	// Group is the group of routes that the path belongs to (route.Group). It is empty for a route of no group.
	Group string
	// Header returns a header's value, or "".
	Header func(name string) string
	// Config is the configuration that the request is judged by.
	Config *configs.View
}

// Gate decides whether a caller may send at all. The server asks a gate when it has read the head of a request and not
// yet the body, with the token if the head has one. If the body has the token, the gate is asked again with that token,
// before the events meet the stages.
//
// An error refuses the request. The error's Code decides the status, and unless the Code is Internal the client reads
// the error's text. The error's Reason is that of the events, if they are known by then. Admit must be safe for
// concurrent use and must not keep anything of the caller.
type Gate interface {
	Phase() Phase
	Name() string
	Admit(ctx context.Context, caller *Caller) error
}

// Gates holds the gates of a build, in the order of (Phase, Name).
type Gates []Gate

// NewGates orders the gates. Two gates with the same phase and name are an error.
func NewGates(gates ...Gate) (Gates, error) {
	return inOrder("gates", gates)
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
