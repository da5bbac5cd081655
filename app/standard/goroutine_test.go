package standard_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// uncontained are the packages that may start goroutines with a go statement: modules/panics, and the tools that put a
// load on a service and judge the result. A panic in such a tool has to end the tool: the messages that it would then
// no longer send or read would look like a loss.
var uncontained = []string{"modules/panics", "testkit/chaos", "testkit/proof", "testkit/cpu"}

// bareGoroutines lists the places where a file starts a goroutine whose panic would end the process.
func bareGoroutines(files *token.FileSet, file *ast.File) []string {
	var faults []string
	fault := func(node ast.Node, format string, args ...any) {
		line := files.Position(node.Pos()).Line
		faults = append(faults, fmt.Sprintf("line %d: %s", line, fmt.Sprintf(format, args...)))
	}
	imports := map[string]string{} // import paths by name
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		name := filepath.Base(path)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imports[name] = path
		if path == "golang.org/x/sync/errgroup" {
			fault(spec, "errgroup: use panics.Group and panics.Try")
		}
	}
	contained := map[*ast.SelectorExpr]bool{} // panics.Go and Group.Go, which take a name as one argument more
	ast.Inspect(file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.GoStmt:
			fault(node, "a go statement: use panics.Go, or Go or Keep of a panics.Group")
		case *ast.CallExpr:
			if called, is := node.Fun.(*ast.SelectorExpr); is && len(node.Args) > 1 {
				contained[called] = true
			}
		case *ast.SelectorExpr:
			of := ""
			if name, is := node.X.(*ast.Ident); is {
				of = imports[name.Name]
			}
			switch {
			case node.Sel.Name == "Go" && !contained[node]:
				fault(node, "the method Go of a sync.WaitGroup: use Go or Keep of a panics.Group")
			case node.Sel.Name == "AfterFunc" && (of == "time" || of == "context"):
				fault(node, "%s.AfterFunc: use panics.AfterFunc", of)
			}
		}
		return true
	})
	return faults
}

func TestEveryGoroutineIsContained(t *testing.T) {
	fields := "-json=Dir,ImportPath,GoFiles,CgoFiles,IgnoredGoFiles"
	list := exec.CommandContext(t.Context(), "go", "list", "-e", fields, "./...")
	list.Dir = "../.."
	out, err := list.Output()
	require.NoError(t, err)
	read, decoder := 0, json.NewDecoder(strings.NewReader(string(out)))
	for {
		var pkg struct {
			Dir, ImportPath                   string
			GoFiles, CgoFiles, IgnoredGoFiles []string
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("read what go list wrote: %v", err)
		}
		if slices.Contains(uncontained, strings.TrimPrefix(pkg.ImportPath, project+"/")) {
			continue
		}
		for _, name := range slices.Concat(pkg.GoFiles, pkg.CgoFiles, pkg.IgnoredGoFiles) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, filepath.Join(pkg.Dir, name), nil, 0)
			if err != nil {
				t.Errorf("%s/%s: %v", pkg.ImportPath, name, err)
				continue
			}
			read++
			for _, fault := range bareGoroutines(files, file) {
				t.Errorf("%s/%s: %s", pkg.ImportPath, name, fault)
			}
		}
	}
	require.Greater(t, read, 100, "go list found the project")
}

func TestABareGoroutineIsFound(t *testing.T) {
	for _, test := range []struct{ source, fault string }{
		{`go f()`, "line 3: a go statement"},
		{`go func() {}()`, "line 3: a go statement"},
		{`if true { defer func() { go f() }() }`, "line 3: a go statement"},
		{`var wg sync.WaitGroup; wg.Go(f)`, "line 3: the method Go of a sync.WaitGroup"},
		{`s.work.Go(func() {})`, "line 3: the method Go of a sync.WaitGroup"},
		{`start := s.work.Go; start(f)`, "line 3: the method Go of a sync.WaitGroup"},
		{`time.AfterFunc(d, f)`, "line 3: time.AfterFunc"},
		{`after := time.AfterFunc; after(d, f)`, "line 3: time.AfterFunc"},
		{`stop := context.AfterFunc(ctx, f)`, "line 3: context.AfterFunc"},
		{`clock.AfterFunc(d, f)`, "line 3: time.AfterFunc"},

		{`panics.Go(log, "the reader", f)`, ""},
		{`s.work.Go("the reader", f)`, ""},
		{`s.work.Keep(ctx, "the reader", f)`, ""},
		{`panics.AfterFunc(log, "the alarm", d, f)`, ""},
		{`f(); defer f(); time.After(d); s.AfterFunc(d, f)`, ""},
	} {
		source := "package p; import (\"context\"; clock \"time\"; \"time\"; \"sync\")\n" +
			"func f() {\n" + test.source + "\n}"
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, "p.go", source, 0)
		require.NoError(t, err, test.source)
		faults := bareGoroutines(files, file)
		if test.fault == "" {
			require.Empty(t, faults, test.source)
			continue
		}
		require.Len(t, faults, 1, test.source)
		require.True(t, strings.HasPrefix(faults[0], test.fault), "%s: %s", test.source, faults[0])
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "p.go", "package p; import \"golang.org/x/sync/errgroup\"", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"line 1: errgroup: use panics.Group and panics.Try"}, bareGoroutines(files, file))
}
