package standard_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// ends are the functions that end events with a reason: how many arguments each has, and which is the reason.
var ends = map[string]struct{ arguments, reason int }{
	"Drop": {1, 0}, "Reject": {2, 0}, "Fail": {2, 0}, "FailPending": {2, 0}, "RejectAll": {3, 1},
}

// The reasons of outcomes are one vocabulary: whoever ends an event takes a constant of modules/events, which has a
// sentence in the documentation, and no word of his own.
func TestNoPartOfTheServiceHasReasonsOfItsOwn(t *testing.T) {
	found := 0
	for _, root := range []string{"../../modules", "../../transport"} {
		require.NoError(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			parsed, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ofEvents := func(spec *ast.ImportSpec) bool { return spec.Path.Value == `"`+project+`/modules/events"` }
			if parsed.Name.Name != "events" && !slices.ContainsFunc(parsed.Imports, ofEvents) {
				return nil // its methods of these names are about something else
			}
			ast.Inspect(parsed, func(node ast.Node) bool {
				call, ok := node.(*ast.CallExpr)
				if !ok {
					return true
				}
				if conversion, ok := call.Fun.(*ast.SelectorExpr); ok && conversion.Sel.Name == "Reason" {
					_, literal := call.Args[0].(*ast.BasicLit)
					require.False(t, literal, "%s: it makes a reason of a text", files.Position(call.Pos()))
				}
				method, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if end, ok := ends[method.Sel.Name]; ok && len(call.Args) == end.arguments {
					found++
					literal, ok := call.Args[end.reason].(*ast.BasicLit)
					require.False(t, ok && literal.Kind == token.STRING, "%s: the reason is a text",
						files.Position(call.Pos()))
				}
				return true
			})
			return nil
		}))
	}
	require.Greater(t, found, 20)
}
