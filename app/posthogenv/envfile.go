package posthogenv

import (
	"fmt"
	"regexp"
	"strings"
)

var assignment = regexp.MustCompile(`^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$`)

// ParseFile reads an environment, in the form of os.Environ, from the text of an .env file or from the output of the
// command env: NAME=value, one a line. It drops empty lines, comments, "export " before a name and quotes around a
// value. A line that is no assignment continues the value of the line before.
func ParseFile(text string) ([]string, error) {
	var environ []string
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		match := assignment.FindStringSubmatch(line)
		blank := strings.TrimSpace(line)
		switch {
		case match != nil:
			environ = append(environ, match[1]+"="+unquote(match[2]))
		case blank == "" || blank[0] == '#':
		case len(environ) == 0:
			return nil, fmt.Errorf("line %d is not NAME=value", i+1)
		default:
			environ[len(environ)-1] += "\n" + line
		}
	}
	return environ, nil
}

// unquote removes the quotes around a value, or the comment behind it.
func unquote(value string) string {
	value = strings.TrimSpace(value)
	if value != "" && (value[0] == '"' || value[0] == '\'') {
		if end := strings.IndexByte(value[1:], value[0]); end >= 0 {
			return value[1 : 1+end]
		}
	}
	value, _, _ = strings.Cut(value, " #")
	return strings.TrimSpace(value)
}
