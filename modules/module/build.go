package module

// Build says which build of the service this is. The app supplies it to the graph.
type Build struct {
	// Version is such as v1.2.3.
	Version string `json:"version"`
	// Commit is what the build was made of, "" if that is not known; Modified is set if the build
	// had more than the commit.
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	// GoVersion is the version of Go, such as go1.26.0.
	GoVersion string `json:"go"`
}

// Revision is the commit, with "-modified" behind it if the build had more; "" if it is not known.
func (b Build) Revision() string {
	if b.Commit != "" && b.Modified {
		return b.Commit + "-modified"
	}
	return b.Commit
}

// String names the build in a line, as "capture --version" shows it.
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
