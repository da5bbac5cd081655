// Package configs is what every module of Capture is made with: the Module value that a build includes or leaves out, and
// the typed configuration section that goes with it.
//
// A section is a plain struct with defaults in Go. Its values come from, in this order (later wins): the defaults, the YAML
// files given with --config, and environment variables named CAPTURE_<SECTION>__<KEY>. Everything that is wrong is reported
// at once, each fault with the dotted path of the key it is about; an unknown key is a fault that names the nearest known one.
//
// The package is a leaf: it imports nothing else of this project.
package configs
