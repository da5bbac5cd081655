package posthogenv

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

const head = `# The environment of PostHog's capture service as configuration of this one, by
# "capture config from-posthog-env". The comments at the end say what could not be translated. See docs/migrating.md.
`

// write writes the values of the keys that the build has. The conflicts, remarks and notes follow as comments.
func (t *translation) write() ([]byte, error) {
	out := bytes.NewBufferString(head)
	var above []string
	for _, key := range t.keys {
		given, found := t.values[key]
		if !found {
			continue
		}
		text, err := inline(given.value)
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", key, err)
		}
		path := strings.Split(key, ".")
		groups, name := path[:len(path)-1], path[len(path)-1]
		shared := 0
		for shared < min(len(groups), len(above)) && groups[shared] == above[shared] {
			shared++
		}
		if shared == 0 {
			out.WriteByte('\n')
		}
		for depth := shared; depth < len(groups); depth++ {
			fmt.Fprintf(out, "%s%s:\n", indent(depth), groups[depth])
		}
		fmt.Fprintf(out, "%s%s: %s # %s\n", indent(len(groups)), name, text, given.origin)
		above = groups
	}
	writeBlock(out, "Keys that this build lacks", t.missing())
	writeBlock(out, "No counterpart", t.remarks(false))
	writeBlock(out, "Nothing to do", t.remarks(true))
	writeBlock(out, "Not known, though the names look like PostHog's", t.unknown())
	writeBlock(out, "To know", t.notes())
	return out.Bytes(), nil
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

// inline writes a value as YAML on one line.
func inline(value any) (string, error) {
	text, err := yaml.Marshal(newNode(value))
	return strings.TrimSpace(string(text)), err
}

// newNode returns a YAML node for the value. It quotes text that YAML would take for another type.
func newNode(value any) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode}
	switch value := value.(type) {
	case string:
		node.SetString(value)
		if !isPrintable(value) {
			node.Style = yaml.DoubleQuotedStyle
		}
	case []string:
		node.Kind, node.Style = yaml.SequenceNode, yaml.FlowStyle
		for _, item := range value {
			node.Content = append(node.Content, newNode(item))
		}
	default:
		node.Value = fmt.Sprint(value)
	}
	return node
}

// width is the column where comments wrap.
const width = 110

// writeBlock writes lines as comments under a title. It writes nothing if there are no lines.
func writeBlock(out *bytes.Buffer, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(out, "\n# %s:\n", title)
	for _, line := range lines {
		bullet, used := "# -", 0
		for _, word := range strings.Fields(line) {
			if used > 0 && used+1+len(word) > width {
				out.WriteByte('\n')
				used = 0
			}
			if used == 0 {
				out.WriteString(bullet)
				bullet, used = "#  ", len(bullet)
			}
			out.WriteString(" " + word)
			used += 1 + len(word)
		}
		out.WriteByte('\n')
	}
}
