package audit

import (
	"strings"
	"time"

	"github.com/opencapture/capture/modules/admin/endpoint"
)

// Subject is what a change is about.
type Subject struct {
	// Kind is the kind of thing, such as project, quota or configuration, and Name its name, such as a token.
	Kind, Name string
	// Before and After are the states before and after the change, in any form that JSON can hold. Nil stands for a
	// thing that does not exist. They hold no secrets: see Conceal.
	Before, After any
	// Asked is what the sender asks for, of a change that nobody knows the state after of before it is made. Else nil.
	Asked any
}

// line is a line of the stream. Later versions may add fields, and neither rename nor remove one.
type line struct {
	Time time.Time `json:"time"`
	// ID is the same in both lines of a change.
	ID   string `json:"id"`
	Step step   `json:"step"`
	// Actor is who calls himself so, Login why he was admitted, and Address where he came from.
	Actor   string `json:"actor,omitempty"`
	Login   string `json:"login,omitempty"`
	Address string `json:"address,omitempty"`
	Method  string `json:"method,omitempty"`
	Path    string `json:"path,omitempty"`
	Kind    string `json:"kind"`
	Name    string `json:"name,omitempty"`
	Before  any    `json:"before,omitempty"`
	Asked   any    `json:"asked,omitempty"`
	After   any    `json:"after,omitempty"`
	// Result is "done", or why the change was not made.
	Result string `json:"result,omitempty"`
}

// step is which line of a change a line is.
type step string

const (
	begin step = "begin"
	end   step = "end"
)

// done is the result of a change that was made.
const done = "done"

func newLine(now time.Time, id string, caller endpoint.Caller, method, path string, of Subject) line {
	return line{
		Time: now.UTC(), ID: id, Step: begin, Actor: caller.Name, Login: caller.Login, Address: caller.Address,
		Method: method, Path: path, Kind: of.Kind, Name: of.Name, Before: of.Before, Asked: of.Asked, After: of.After,
	}
}

// concealed takes the place of a secret.
const concealed = "******"

// secretWords are parts of the names of fields that hold secrets.
var secretWords = []string{"secret", "password", "private", "credential"}

// Conceal returns a copy of a record's fields in which the values of secrets are masked.
func Conceal(fields map[string]string) map[string]string {
	if fields == nil {
		return nil
	}
	shown := make(map[string]string, len(fields))
	for name, value := range fields {
		for _, word := range secretWords {
			if strings.Contains(strings.ToLower(name), word) {
				value = concealed
			}
		}
		shown[name] = value
	}
	return shown
}
