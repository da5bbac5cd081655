package api

import (
	"fmt"
	"strings"
)

// Path joins the parts of a path, each percent-encoded: Path("admin", "projects", token).
func Path(parts ...string) string {
	var path strings.Builder
	for _, part := range parts {
		path.WriteByte('/')
		for i := range len(part) {
			// Every byte that is no letter or digit: a path of dots would be taken for a direction.
			c := part[i]
			if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' {
				path.WriteByte(c)
				continue
			}
			fmt.Fprintf(&path, "%%%02X", c)
		}
	}
	return path.String()
}
