package events

import (
	"fmt"
	"strings"
)

// Scopes is a set of kinds of events. The zero value is the set of all.
type Scopes uint16

// ScopeHistorical is the scope of migrations of old events. The other scopes are those of the resources.
const ScopeHistorical Scopes = 1 << 15

const historicalName = "historical"

// ScopeOf returns the scope of a resource.
func ScopeOf(resource Resource) Scopes { return 1 << resource }

// Has reports whether the set has the scope.
func (s Scopes) Has(scope Scopes) bool { return s == 0 || s&scope != 0 }

// String lists the scopes, separated by commas. It is empty for the set of all.
func (s Scopes) String() string {
	var names []string
	for _, resource := range Resources() {
		if s&ScopeOf(resource) != 0 {
			names = append(names, resource.String())
		}
	}
	if s&ScopeHistorical != 0 {
		names = append(names, historicalName)
	}
	return strings.Join(names, ", ")
}

// ParseScope reads the name of a scope: that of a resource, or historical.
func ParseScope(name string) (Scopes, error) {
	if name == historicalName {
		return ScopeHistorical, nil
	}
	resource, err := ParseResource(name)
	if err != nil {
		return 0, fmt.Errorf("%w, or %s for migrations of old events", err, historicalName)
	}
	return ScopeOf(resource), nil
}
