package configs

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Set is the loaded configuration of a build. It does not change and is safe for concurrent use.
type Set struct {
	layout *layout
	// origins maps each key whose value is not the default to the source of the value: a file and line, or the name of
	// a variable.
	origins map[string]string
	// faults are those of a configuration that Inspect has returned. unread holds the keys whose value could not be
	// read, so that they have their default.
	faults []Fault
	unread map[string]bool
}

// Section returns the section of the named module, as a value of the same type as its defaults. It returns nil if the
// build has no such section.
func (s *Set) Section(name string) any {
	for _, section := range s.layout.sections {
		if section.name == name {
			return section.value.Interface()
		}
	}
	return nil
}

// SectionOf returns the section or group of keys that has the type C. If the build has none or several, that is an
// error.
func SectionOf[C any](set *Set) (section C, err error) {
	found := 0
	for _, path := range set.layout.paths {
		k := set.layout.byPath[path]
		if k.group && k.value.Type() == reflect.TypeFor[C]() {
			section, found = k.value.Interface().(C), found+1
		}
	}
	switch found {
	case 0:
		return section, fmt.Errorf("no section of this build is a %s: include the module that has it",
			reflect.TypeFor[C]())
	case 1:
		return section, nil
	default:
		return section, errors.New("several sections of this build are a " + reflect.TypeFor[C]().String())
	}
}

// YAML writes every key with its value. It masks secrets, the arguments of commands, and the login in a URL or an
// address. It puts the origin beside a value that is not the default. Above a key with a fault it says what is wrong.
// The faults that are about no key of the build come first.
func (s *Set) YAML() ([]byte, error) {
	faults := map[string]string{}
	var head strings.Builder
	for _, fault := range s.faults {
		if _, known := s.layout.byPath[fault.Key]; known {
			faults[fault.Key] += "FAULT: " + oneLine(fault.Message) + "\n"
		} else {
			head.WriteString("# FAULT: " + oneLine(fault.String()) + "\n")
		}
	}
	if head.Len() > 0 {
		head.WriteByte('\n')
	}
	body, err := s.layout.write(func(k *key, name, value *yaml.Node) {
		name.HeadComment = strings.TrimSuffix(faults[k.path], "\n")
		value.LineComment = s.origins[k.path]
		if s.unread[k.path] {
			value.LineComment = "the default"
		}
	})
	return append([]byte(head.String()), body...), err
}

// oneLine keeps a text within the comment that it stands in.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// write encodes the sections as YAML. The function comment may add comments to the nodes of a key.
func (l *layout) write(comment func(k *key, name, value *yaml.Node)) ([]byte, error) {
	var out bytes.Buffer
	for i, section := range l.sections {
		if i > 0 {
			out.WriteByte('\n')
		}
		root := &yaml.Node{Kind: yaml.MappingNode}
		section.appendTo(root, comment)
		encoder := yaml.NewEncoder(&out)
		encoder.SetIndent(2)
		if err := encoder.Encode(root); err != nil {
			return nil, fmt.Errorf("write section %s: %w", section.name, err)
		}
	}
	return out.Bytes(), nil
}

func (k *key) appendTo(parent *yaml.Node, comment func(k *key, name, value *yaml.Node)) {
	name := &yaml.Node{Kind: yaml.ScalarNode, Value: k.name}
	value := &yaml.Node{Kind: yaml.MappingNode}
	if k.group {
		for _, child := range k.keys {
			child.appendTo(value, comment)
		}
	} else {
		value = k.node()
	}
	comment(k, name, value)
	parent.Content = append(parent.Content, name, value)
}

// node returns the value in the notation that set reads.
func (k *key) node() *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode}
	switch value := k.value.Interface().(type) {
	case string:
		setText(node, shown(value))
	case []string:
		listNode(node, value)
	case List:
		listNode(node, value.entries)
	case Files:
		listNode(node, value.paths)
	case Command:
		listNode(node, value)
		for _, argument := range node.Content[min(1, len(value)):] {
			argument.SetString(masked)
		}
	case Secret:
		node.SetString(value.String())
	case time.Duration:
		node.Value = formatDuration(value)
	case float64:
		node.Value = strconv.FormatFloat(value, 'g', -1, 64)
	default:
		node.Value = fmt.Sprint(value)
	}
	return node
}

// setText gives a node a text. A text with a character that cannot be seen is in double quotes, because only there YAML
// reads the escape that a command prints in the place of such a character.
func setText(node *yaml.Node, text string) {
	node.SetString(text)
	if strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		node.Style = yaml.DoubleQuotedStyle
	}
}

// listNode makes the node a list of texts.
func listNode(node *yaml.Node, texts []string) {
	node.Kind, node.Style = yaml.SequenceNode, yaml.FlowStyle
	for _, text := range texts {
		child := &yaml.Node{}
		setText(child, shown(text))
		node.Content = append(node.Content, child)
	}
}

// formatDuration writes a duration without the zero parts that time.Duration writes: 1h, not 1h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// kind is the note in the reference on how a key's value is written. The head of the reference explains these notes. A
// type that the default makes obvious has no note.
func (k *key) kind() string {
	kind := ""
	switch k.value.Interface().(type) {
	case time.Duration:
		kind = "Duration."
	case ByteSize:
		kind = "Size."
	case []string, List, Files, Command:
		kind = "List."
	case Secret:
		kind = "Secret."
	}
	if k.live && !k.group {
		kind = strings.TrimSpace(kind + " Live.")
	}
	return kind
}
