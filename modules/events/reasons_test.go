package events

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// declaredReasons reads the constants of type Reason in this package.
func declaredReasons(t *testing.T) (reasons []Reason) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), "outcome.go", nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	ast.Inspect(parsed, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Reason" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			reasons = append(reasons, Reason(text))
		}
		return true
	})
	require.Greater(t, len(reasons), 25)
	return reasons
}

func TestEveryReasonHasASentence(t *testing.T) {
	t.Parallel()
	explained := map[Reason]bool{}
	word := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	for _, e := range Explanations() {
		require.False(t, explained[e.Reason], "%s is explained twice", e.Reason)
		explained[e.Reason] = true
		require.Regexp(t, word, e.Reason)
		require.Regexp(t, `^[A-Z\x60].*\.$`, e.Text, e.Reason)
		require.NotEqual(t, StatePending, e.State)
	}
	for _, reason := range declaredReasons(t) {
		require.True(t, explained[reason], "%s has no sentence in reasons.go", reason)
		delete(explained, reason)
	}
	require.Empty(t, explained, "no longer a reason")
}

// reasonTable returns the table of reasons as the documentation has it.
func reasonTable() string {
	var table strings.Builder
	table.WriteString("| reason | how the event ended | why |\n|---|---|---|\n")
	for _, e := range Explanations() {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", e.Reason, e.State, e.Text)
	}
	return table.String()
}

func TestTheDocumentationHasEveryReason(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	require.NoError(t, err)
	table := reasonTable()
	require.Contains(t, string(text), "\n\n"+table+"\n", "put this in docs/troubleshooting.md:\n%s", table)
}
