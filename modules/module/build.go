package module

// Build says which build of the service this is. The app supplies it to the graph.
type Build struct {
	// Version is such as v1.2.3.
	Version string
	// Revision is the commit, with "-modified" behind it if the build had more; it is "" if it is not known.
	Revision string
	// GoVersion is such as go1.26.0.
	GoVersion string
}
