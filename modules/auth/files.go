package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

// known is what is known of a token. It never changes.
type known struct {
	project events.Project
	record  project.Record
	// from names the authenticator that knows the token.
	from string
}

func newKnown(record project.Record, from string) *known {
	return &known{
		project: events.Project{ID: record.ID, Limits: record.Limits, Scopes: record.Scopes},
		record:  record, from: from,
	}
}

// fromFiles is where the projects of files are known from.
const fromFiles = "files"

// maxFaults is how many faults of files are told of.
const maxFaults = 50

// parseFiles reads the projects of all files: each token with the fields of its project. A list may be written as one
// of YAML. A fault says in which file and line it is.
func parseFiles(files []configs.File) (projects map[string]*known, faults []string) {
	p := fileParser{projects: map[string]*known{}, places: map[string]string{}}
	for _, file := range files {
		p.file = file.Path
		p.read(file.Data)
	}
	if more := len(p.faults) - maxFaults; more > 0 {
		p.faults = append(p.faults[:maxFaults], fmt.Sprintf("and %d faults more", more))
	}
	return p.projects, p.faults
}

type fileParser struct {
	file     string
	projects map[string]*known
	// places says where each project stands.
	places map[string]string
	faults []string
}

func (p *fileParser) place(node *yaml.Node) string {
	return p.file + ", line " + strconv.Itoa(node.Line)
}

func (p *fileParser) faultf(node *yaml.Node, format string, args ...any) {
	p.faults = append(p.faults, p.place(node)+": "+fmt.Sprintf(format, args...))
}

func (p *fileParser) read(data []byte) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return
	case err != nil:
		p.faults = append(p.faults, p.file+": "+strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		p.faults = append(p.faults, p.file+": must be one document: write all projects below each other, without ---")
		return
	}
	root := resolve(document.Content[0])
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return
	}
	if root.Kind != yaml.MappingNode {
		p.faultf(root, "must be tokens, each with the fields of its project")
		return
	}
	for i := 0; i < len(root.Content); i += 2 {
		p.project(root.Content[i], resolve(root.Content[i+1]))
	}
}

// resolve returns the node that an alias stands for.
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func (p *fileParser) project(name, value *yaml.Node) {
	token, fault := events.CheckToken(name.Value)
	switch {
	case name.Kind != yaml.ScalarNode:
		p.faultf(name, "must be a token and the fields of its project")
		return
	case fault != "" || token != name.Value:
		p.faultf(name, "%q is no token: it must be 1 to %d ASCII characters without blanks around them, and no "+
			"personal key (phx_)", name.Value, events.MaxToken)
		return
	case p.places[token] != "":
		p.faultf(name, "the project %q stands in %s already", token, p.places[token])
		return
	}
	p.places[token] = p.place(name)
	fields := store.Fields{}
	switch {
	case value.Kind == yaml.MappingNode:
		if !p.fields(token, value, fields) {
			return
		}
	case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
	default:
		p.faultf(value, "the project %q must have fields, such as name: Shop", token)
		return
	}
	record, err := project.Parse(fields)
	var found *configs.FaultsError
	if errors.As(err, &found) {
		for _, fault := range found.Faults {
			p.faultf(name, "the project %q: %s", token, fault)
		}
		return
	}
	p.projects[token] = newKnown(record, fromFiles)
}

// fields reads the fields of a project, and reports whether they have the right form.
func (p *fileParser) fields(token string, mapping *yaml.Node, into store.Fields) (ok bool) {
	before := len(p.faults)
	for i := 0; i < len(mapping.Content); i += 2 {
		name, value := mapping.Content[i], resolve(mapping.Content[i+1])
		if _, twice := into[name.Value]; twice {
			p.faultf(name, "the project %q has the field %q twice", token, name.Value)
			continue
		}
		text, ok := textOf(value)
		if !ok {
			p.faultf(value, "the field %q of the project %q must be a text or a list of texts", name.Value, token)
		}
		into[name.Value] = text
	}
	return len(p.faults) == before
}

// textOf returns the text of a scalar, or the texts of a sequence of scalars with commas between them.
func textOf(node *yaml.Node) (text string, ok bool) {
	switch node.Kind {
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return "", true
		}
		return node.Value, true
	case yaml.SequenceNode:
		texts := make([]string, len(node.Content))
		for i, item := range node.Content {
			item = resolve(item)
			if item.Kind != yaml.ScalarNode {
				return "", false
			}
			texts[i] = item.Value
		}
		return strings.Join(texts, ", "), true
	}
	return "", false
}
