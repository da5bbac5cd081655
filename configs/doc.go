// Package configs is the typed configuration of a build: a section for each module that has settings.
//
// A section is a plain struct with defaults in Go. Its values come from, in this order (later wins): the defaults,
// the YAML files given with --config, and environment variables named CAPTURE_<SECTION>__<KEY>. Everything that is
// wrong is reported at once, each fault with the dotted path of the key it is about; an unknown key is a fault that
// names the nearest known one.
//
// The package is a leaf: it imports nothing else of this project.
package configs
