package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Source names the sources of values beside the defaults: the files in their order, then the environment. A later
// source wins.
type Source struct {
	// Files are the paths of YAML files.
	Files []string
	// Environ is an environment in the form of os.Environ. Load reads only the variables that begin with CAPTURE_. Of
	// these it ignores those that begin with CAPTURE_TEST_, which are for tests, and those that Kubernetes sets for a
	// service called "capture".
	Environ []string
	// Elsewhere says of a variable that begins with CAPTURE_ and is no setting what it is instead and what to do about
	// it, or "" if it does not know. It may be nil.
	Elsewhere func(variable string) string

	files []contents  // of Files, if they have been read
	named *namedFiles // those that entries of lists name
}

// Read returns the source with what its files hold now. Load reads the files of a source by itself where Read has not.
// Of a source that was read before, Read returns another one: it leaves files alone that can be read only once, such as
// a pipe, and refuses a file that held something and is empty now. It reads the files of lists as well that the Load
// before has found.
func (s Source) Read() Source {
	files := make([]contents, len(s.Files))
	for i, path := range s.Files {
		var before *contents
		if s.files != nil {
			before = &s.files[i]
		}
		files[i] = readContents(path, before)
		if before != nil {
			files[i] = files[i].orTruncated(*before)
		}
	}
	s.files, s.named = files, s.named.again()
	return s
}

// Digest is a digest of what the files held when they were read: those of the source, and those that entries of lists
// name (see List), as far as a Load of this source or of one before has found them. It tells two states of the files
// apart.
func (s Source) Digest() [32]byte { return digestOf(slices.Concat(s.files, s.named.contents())) }

const envPrefix = "CAPTURE_"

// serviceLink matches the variables that Kubernetes puts into the environment of every pod beside a service whose name
// begins with "capture", such as CAPTURE_PORT_8000_TCP_ADDR. The variable of a setting never looks like this, since it
// has a double underscore.
var serviceLink = regexp.MustCompile(`^CAPTURE_([A-Z0-9]+_)*` +
	`(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// envName returns the variable that sets the key at the path.
func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "__"))
}

// reader collects the values of the keys of a layout from the sources. A value of a later source replaces that of an
// earlier one. A value is a string, or a []string for a list. It stays text, as typed, until the type of its key is
// known. So the same letters mean the same in a file and in the environment, and YAML's guesses (0123 is 83, 1e3 is a
// float) change nothing.
type reader struct {
	layout  *layout
	faults  *Faults
	origins map[string]string
	values  map[string]any

	elsewhere func(variable string) string
}

// fault records a fault and the origin of the faulty value.
func (r *reader) fault(path, origin, format string, args ...any) {
	r.faults.Addf(path, "%s (%s)", fmt.Sprintf(format, args...), origin)
}

func (r *reader) keep(path, origin string, value any) {
	r.values[path] = value
	r.origins[path] = origin
}

func (r *reader) file(name string, content contents) {
	if content.err != nil {
		r.faults.Addf(name, "cannot be read: %s", content.err)
		return
	}
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(content.data))
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return
	}
	if err == nil {
		if err = decoder.Decode(&second); err == nil {
			r.faults.Addf(name, "line %d: a second document begins here, and only one can be read: use a file for each",
				second.Line)
			return
		}
	}
	if !errors.Is(err, io.EOF) {
		r.faults.Addf(name, "%s", yamlFault(err))
		return
	}
	root := follow(document.Content[0])
	switch {
	case isNull(root):
	case root.Kind != yaml.MappingNode:
		r.faults.Addf(name, "line %d: a configuration is a mapping of sections", root.Line)
	default:
		r.mapping(root, "", name)
	}
}

// yamlFault says what is wrong with a file. It leaves out a name that may be a secret: an unquoted value that begins
// with * is an alias to YAML.
func yamlFault(err error) string {
	if strings.Contains(err.Error(), "unknown anchor") {
		return "a value begins with *, which YAML takes for the name of another value: put the value into quotes"
	}
	return strings.TrimPrefix(err.Error(), "yaml: ")
}

func (r *reader) mapping(node *yaml.Node, parent, file string) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], follow(node.Content[i+1])
		path := name.Value
		if parent != "" {
			path = parent + "." + path
		}
		origin := fmt.Sprintf("%s:%d", file, name.Line)
		if seen[path] {
			r.fault(path, origin, "is given twice")
			continue
		}
		seen[path] = true
		k, known := r.layout.byPath[path]
		switch {
		case strings.Contains(name.Value, "."):
			r.fault(path, origin, "is written with a dot: put each part on a line of its own, indented below the other")
		case !known:
			r.unknown(path, origin)
		case k.group && value.Kind == yaml.MappingNode:
			r.mapping(value, path, file)
		case k.group && isNull(value):
		case k.group:
			r.fault(path, origin, "is a group of keys, not a value")
		case isNull(value):
			r.fault(path, origin, "has no value: give it one, or leave the key out")
		case value.Kind == yaml.ScalarNode:
			r.keep(path, origin, value.Value)
		case value.Kind == yaml.SequenceNode && k.list():
			r.list(value, path, origin)
		case value.Kind == yaml.SequenceNode:
			r.fault(path, origin, "is one value, not a list")
		default:
			r.fault(path, origin, "is a value, not a group of keys")
		}
	}
}

func (r *reader) list(node *yaml.Node, path, origin string) {
	items := make([]string, len(node.Content))
	for i, item := range node.Content {
		if item = follow(item); item.Kind != yaml.ScalarNode || isNull(item) {
			r.fault(path, origin, "item %d of the list is not a plain value", i+1)
			return
		}
		items[i] = item.Value
	}
	r.keep(path, origin, items)
}

func (r *reader) unknown(path, origin string) {
	if name, _, glued := strings.Cut(path, ":"); glued {
		// What stands behind the colon may be a secret.
		r.fault(name, origin, "needs a space behind its colon")
		return
	}
	kind := "key"
	if !strings.Contains(path, ".") {
		kind = "section"
	}
	switch near := r.layout.nearest(path); {
	case near != "":
		r.fault(path, origin, "unknown %s, did you mean %s?", kind, near)
	case kind == "section":
		names := make([]string, len(r.layout.sections))
		for i, section := range r.layout.sections {
			names[i] = section.name
		}
		r.fault(path, origin, "unknown section: the modules of this build have %s", strings.Join(names, ", "))
	default:
		r.fault(path, origin, "unknown key")
	}
}

func (r *reader) environ(environ []string) {
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, envPrefix)
		if !ours || strings.HasPrefix(rest, "TEST_") || serviceLink.MatchString(name) {
			continue
		}
		path := strings.ReplaceAll(strings.ToLower(rest), "__", ".")
		k, known := r.layout.byPath[path]
		switch {
		case !known:
			r.faults.Addf(path, "unknown environment variable %s%s", name, r.advice(name, path))
		case k.group:
			r.fault(path, name, "is a group of keys, not a value")
		default:
			r.keep(path, name, value)
		}
	}
}

// advice ends a sentence about an unknown variable.
func (r *reader) advice(name, path string) string {
	if r.elsewhere != nil {
		if is := r.elsewhere(name); is != "" {
			return ": " + is
		}
	}
	if near := r.layout.nearest(path); near != "" {
		return ", did you mean " + envName(near) + "?"
	}
	return ""
}

// follow resolves an alias to the node that it stands for.
func follow(node *yaml.Node) *yaml.Node {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}
