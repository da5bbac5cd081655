package module

// Build identifies the build of the service. The app supplies it to the graph.
type Build struct {
	// Version is the version of the service, such as v1.2.3.
	Version string `json:"version"`
	// Commit is the commit that the build was made of, "" if it is not known. Modified is set if the sources of the
	// build differed from the commit.
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	// GoVersion is the version of Go, such as go1.26.0.
	GoVersion string `json:"go"`
}

// Revision returns the commit, followed by "-modified" if the sources differed from it, or "" if the commit is not
// known.
func (b Build) Revision() string {
	if b.Commit != "" && b.Modified {
		return b.Commit + "-modified"
	}
	return b.Commit
}

// String returns one line that names the build, as "capture --version" shows it.
func (b Build) String() string {
	text := "capture version " + b.Version
	if b.Commit != "" {
		text += " commit " + b.Commit
		if b.Modified {
			text += " (modified)"
		}
	}
	return text + " " + b.GoVersion
}
