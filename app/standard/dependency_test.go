package standard_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
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

const project = "github.com/opencapture/capture"

// shared are the parts that every module and transport may import. A shared part imports configs and the shared parts
// that are listed before it. A part that is a directory below a module is a port: two modules use it to exchange a type
// without importing each other.
var shared = []string{
	"modules/panics", "modules/terminal", "configs", "modules/module", "modules/listen", "modules/private",
	"modules/events", "modules/produce", "modules/observability", "modules/admin/endpoint", "modules/store",
	"modules/admin/audit", "modules/admin/api", "modules/admin/client", "modules/jsonscan", "transport/route",
	"modules/project", "modules/restriction",
}

// mayImport returns the other parts of the project that a part may import. A part is a directory with everything below
// it except the ports. It is named by its path; "" is main.go. A part imports itself freely.
func mayImport(part string) (others []string, known bool) {
	if i := slices.Index(shared, part); i >= 0 {
		return shared[:i], true
	}
	switch part {
	case "app":
		return []string{"configs", "modules/module", "modules/panics", "modules/terminal"}, true
	case "app/standard":
		return []string{"configs", "app", "transport", "modules/*"}, true
	case "testkit":
		return slices.Concat(shared, []string{"app", "app/standard", "transport", "modules/*"}), true
	case "":
		return []string{"app", "app/standard"}, true
	case "modules/embedded":
		return slices.Concat(shared, []string{"modules/kafka"}), true
	}
	return shared, part == "transport" || strings.HasPrefix(part, "modules/")
}

// libraries lists which parts may import a library that shapes the code that uses it.
var libraries = []struct {
	path  string
	parts []string
}{
	{"github.com/IBM/sarama", []string{"modules/kafka", "modules/embedded", "testkit"}},
	{"github.com/redis/go-redis", []string{"modules/store"}},
	{"github.com/gofiber/fiber", []string{"transport"}},
	{"go.uber.org/fx", []string{"modules/module", "app", "testkit"}},
}

// sourceFile is one file of the project and its place.
type sourceFile struct {
	pkg  string // the import path
	name string
	// external is set for a test file of package x_test.
	external bool
}

// partOf names the part that a package of the project belongs to.
func partOf(pkg string) string {
	path := strings.TrimPrefix(strings.TrimPrefix(pkg, project), "/")
	if slices.Contains(shared, path) {
		return path
	}
	segments := strings.Split(path, "/")
	if len(segments) > 1 && (segments[0] == "modules" || path == "app/standard") {
		return segments[0] + "/" + segments[1]
	}
	return segments[0]
}

// brokenRule returns the rule that the import breaks, or "".
func brokenRule(file sourceFile, imported string) string {
	part := partOf(file.pkg)
	if imported == project || strings.HasPrefix(imported, project+"/") {
		others, known := mayImport(part)
		if !known {
			return fmt.Sprintf(
				"%q is no part that the dependency rule knows: add it to mayImport with what it may import", part)
		}
		if file.external {
			// Tests run the real parts: the whole service, the embedded broker in the place of a cluster, or the
			// producer behind its port.
			others = slices.Concat(others, []string{"testkit", "modules/embedded", "modules/kafka"})
		}
		to := partOf(imported)
		if to == part || slices.Contains(others, to) ||
			slices.Contains(others, "modules/*") && strings.HasPrefix(to, "modules/") {
			return ""
		}
		return fmt.Sprintf("%s may import only itself and [%s] of this project, not %s", cmp.Or(part, "main.go"),
			strings.Join(others, " "), to)
	}
	for _, library := range libraries {
		if imported != library.path && !strings.HasPrefix(imported, library.path+"/") ||
			slices.Contains(library.parts, part) {
			continue
		}
		switch {
		case library.path != "go.uber.org/fx":
			return fmt.Sprintf("only [%s] may import %s", strings.Join(library.parts, " "), library.path)
		case file.name != "module.go" && file.name != "module_test.go":
			return fmt.Sprintf("only module.go files, their tests and [%s] may import fx: constructors work without it",
				strings.Join(library.parts, " "))
		}
	}
	return ""
}

func TestDependencyRule(t *testing.T) {
	for _, module := range []string{"../..", "../../testkit/chaos", "../../testkit/sdk"} {
		list := exec.CommandContext(t.Context(), "go", "list", "-e",
			"-json=Dir,ImportPath,GoFiles,CgoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles", "./...")
		list.Dir = module
		out, err := list.Output()
		require.NoError(t, err)
		require.NotZero(t, checkPackages(t, out), "packages of %s", module)
	}
}

// checkPackages reads the output of go list, reports the packages that break the rule, and returns the number of
// packages.
func checkPackages(t *testing.T, out []byte) int {
	packages, decoder := 0, json.NewDecoder(bytes.NewReader(out))
	for {
		var pkg struct {
			Dir, ImportPath                                              string
			GoFiles, CgoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("read what go list wrote: %v", err)
		}
		packages++
		for _, name := range slices.Concat(pkg.GoFiles, pkg.CgoFiles, pkg.IgnoredGoFiles, pkg.TestGoFiles,
			pkg.XTestGoFiles) {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(pkg.Dir, name), nil, parser.ImportsOnly)
			if err != nil {
				t.Errorf("%s/%s: %v", pkg.ImportPath, name, err)
				continue
			}
			where := sourceFile{pkg: pkg.ImportPath, name: name, external: strings.HasSuffix(file.Name.Name, "_test")}
			for _, spec := range file.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				require.NoError(t, err)
				if rule := brokenRule(where, imported); rule != "" {
					t.Errorf("%s/%s imports %s, but %s", pkg.ImportPath, name, imported, rule)
				}
			}
		}
	}
}

func TestDependencyRuleKnowsRightFromWrong(t *testing.T) {
	for _, test := range []struct {
		pkg, file, imported string
		broken              string
	}{
		{"modules/kafka", "producer.go", "github.com/IBM/sarama", ""},
		{"modules/kafka", "producer.go", project + "/modules/events", ""},
		{"modules/kafka", "producer.go", project + "/configs", ""},
		{"modules/kafka", "module.go", "go.uber.org/fx", ""},
		{"modules/kafka", "module_test.go", "go.uber.org/fx/fxtest", ""},
		{"modules/embedded", "broker.go", project + "/modules/kafka", ""},
		{"transport/posthog", "handler.go", project + "/transport/decode", ""},
		{"transport", "server.go", "github.com/gofiber/fiber/v2/middleware/cors", ""},
		{"app/standard", "standard.go", project + "/modules/dedup", ""},
		{"testkit", "service.go", project + "/app/standard", ""},
		{"", "main.go", project + "/app", ""},
		{"modules/quota", "quota.go", project + "/transport/route", ""},
		{"modules/quota", "quota.go", project + "/modules/admin/endpoint", ""},
		{"modules/admin", "server.go", project + "/modules/admin/endpoint", ""},

		{"configs", "load.go", project + "/modules/events", "configs may import only itself and ["},
		{"app", "app.go", project + "/modules/events", "app may import only itself and ["},
		{"app", "app.go", project + "/app/standard", "app may import only itself and ["},
		{"modules/events", "sink.go", project + "/modules/observability",
			"modules/events may import only itself and ["},
		{"modules/quota", "quota.go", project + "/modules/dedup", "modules/quota may import only itself and ["},
		{"modules/quota", "quota.go", project + "/transport", "modules/quota may import only itself and ["},
		{"transport/posthog", "handler.go", project + "/modules/kafka", "transport may import only itself and ["},
		{"modules/produce", "message.go", project + "/modules/observability",
			"modules/produce may import only itself and ["},
		{"modules/quota", "quota.go", project + "/modules/admin", "modules/quota may import only itself and ["},
		{"modules/kafka", "producer.go", project + "/testkit", "modules/kafka may import only itself and ["},
		{"", "main.go", project + "/modules/kafka", "main.go may import only itself and ["},
		{"util", "util.go", project + "/configs",
			`"util" is no part that the dependency rule knows: add it to mayImport with what it may import`},
		{"transport", "server.go", "github.com/IBM/sarama",
			"only [modules/kafka modules/embedded testkit] may import github.com/IBM/sarama"},
		{"modules/admin", "server.go", "github.com/gofiber/fiber/v2",
			"only [transport] may import github.com/gofiber/fiber"},
		{"modules/quota", "quota.go", "github.com/redis/go-redis/v9",
			"only [modules/store] may import github.com/redis/go-redis"},
		{"modules/kafka", "producer.go", "go.uber.org/fx", "only module.go files, their tests and [modules/module " +
			"app testkit] may import fx: constructors work without it"},
	} {
		file := sourceFile{pkg: strings.TrimSuffix(project+"/"+test.pkg, "/"), name: test.file}
		broken := brokenRule(file, test.imported)
		require.True(t, strings.HasPrefix(broken, test.broken), "%s/%s -> %s: %s", test.pkg, test.file, test.imported,
			broken)
		require.Equal(t, test.broken == "", broken == "", "%s/%s -> %s: %s", test.pkg, test.file, test.imported, broken)
	}
	test := sourceFile{pkg: project + "/modules/kafka", name: "producer_test.go", external: true}
	require.Empty(t, brokenRule(test, project+"/testkit"), "an external test may use the testkit")
	require.Empty(t, brokenRule(test, project+"/modules/embedded"), "an external test may use the embedded broker")
	require.NotEmpty(t, brokenRule(test, project+"/modules/quota"))
	test.pkg = project + "/modules/delivery"
	require.Empty(t, brokenRule(test, project+"/modules/kafka"), "an external test may use the producer")
	test.external = false
	require.NotEmpty(t, brokenRule(test, project+"/modules/kafka"), "an internal one may not")
}
