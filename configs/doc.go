// Package configs is the typed configuration of a build: a section for each module that has settings.
//
// A section is a plain struct with defaults in Go. Its values come from three sources, of which a later one wins: the
// defaults, the YAML files given with --config, and the environment variables named CAPTURE_<SECTION>__<KEY>. Load
// reports every fault at once, each with the dotted path of its key. For an unknown key the fault names the nearest
// known one. The entries of a List may name further files, whose lines are values.
//
// The package is a leaf: of this project it imports only modules/panics.
package configs
