// Package app is the composition root: it makes one Fx graph of the modules of a build, runs the graph, and owns the
// command line.
//
// A build is a list of modules. Main is all that a binary needs:
//
//	func main() { app.Main(standard.Modules()...) }
//
// The life of a service, in order:
//
//  1. The app loads and checks the configuration as a whole before it builds anything.
//  2. Every module becomes an fx.Module with its section, and with a logger and a metrics scope that carry its name.
//  3. The one Invoke of the graph asks for the background members and then for the root (see modules/module). Fx builds
//     everything that they need. For a type that no module provides, the error names the module to include.
//  4. The start hooks run in the order of construction, under app.start_timeout. Then the app prints the start facts.
//  5. While the service runs, the app watches the files of the configuration and exchanges the configuration when they
//     change, and on SIGHUP (see configs.Live).
//  6. A signal, or a module through fx.Shutdowner, ends the service. The stop hooks run in reverse order, under
//     app.stop_timeout.
//
// The package imports no module. The types by which it knows modules are in modules/module.
package app
