// Package app is the composition root: it makes one Fx graph of the modules of a build, runs it, and owns the command line.
//
// A build is a list of modules. Main is all that a binary needs:
//
//	func main() { app.Main(standard.Modules()...) }
//
// What happens, in order:
//
//  1. The configuration is loaded and checked as a whole, before anything is built.
//  2. Every module becomes an fx.Module with its section, and with a logger and a metrics scope that carry its name.
//  3. The one Invoke of the graph asks for the background members and then for the root (see modules/module), and by that for
//     everything they need. A type that nobody provides is reported with the module to include.
//  4. Start hooks run in order of construction under app.start_timeout; then the start facts are printed.
//  5. A signal, or a module through fx.Shutdowner, ends the service: stop hooks run in reverse under app.stop_timeout.
//
// The package imports no module: what it needs to know of them is in modules/module.
package app
