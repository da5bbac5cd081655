package testkit_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/opencapture/capture/app"
	"github.com/opencapture/capture/app/standard"
	"github.com/opencapture/capture/configs"
)

// The pages of the documentation are held to the code: their commands run, their configuration is one, and what they
// mention exists. A comment right above a block says how the test treats it:
//
//	<!-- until interrupted -->                each line prints something and then runs until it is interrupted
//	<!-- with mine.yaml: {a: b} -->           the block finds a file of this content, which is YAML
//	<!-- not run: WHY -->                     the commands are only looked up
//	<!-- not configuration: WHAT -->          the YAML is that of another program
//
// The first two may stand in one comment, with a comma between them.

// docsBlock is a block of a page.
type docsBlock struct {
	at                 string // page and line
	lang, text         string
	interrupted        bool
	file, content      string
	notRun, notOurYAML bool
}

var (
	fence     = regexp.MustCompile("^( *)```([a-z]*)$")
	directive = regexp.MustCompile(`^ *<!-- ((?:until interrupted|with|not run|not configuration).*) -->$`)
	withFile  = regexp.MustCompile(`with (\S+): (.*)$`)
)

// docsPages returns the pages by their paths.
func docsPages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../docs/*.md")
	require.NoError(t, err)
	pages := map[string]string{}
	for _, path := range append(paths, "../README.md") {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		pages[strings.TrimPrefix(path, "../")] = string(text)
	}
	require.Greater(t, len(pages), 9)
	return pages
}

// docsBlocks returns the blocks of a page, and its text without them.
func docsBlocks(t *testing.T, page, text string) (blocks []docsBlock, prose string) {
	t.Helper()
	var rest strings.Builder
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		opened := fence.FindStringSubmatch(lines[i])
		if opened == nil {
			if !directive.MatchString(lines[i]) {
				rest.WriteString(lines[i] + "\n")
			}
			continue
		}
		block := docsBlock{at: fmt.Sprintf("%s:%d", page, i+1), lang: opened[2]}
		if said := directive.FindStringSubmatch(lines[max(i-1, 0)]); said != nil {
			block.interrupted = strings.HasPrefix(said[1], "until interrupted")
			block.notRun = strings.HasPrefix(said[1], "not run: ")
			block.notOurYAML = strings.HasPrefix(said[1], "not configuration: ")
			if file := withFile.FindStringSubmatch(said[1]); file != nil {
				block.file, block.content = file[1], file[2]
			}
		}
		for i++; i < len(lines) && lines[i] != opened[1]+"```"; i++ {
			block.text += strings.TrimPrefix(lines[i], opened[1]) + "\n"
		}
		require.Less(t, i, len(lines), "%s: the block does not end", block.at)
		blocks = append(blocks, block)
	}
	return blocks, rest.String()
}

// isTranscript reports whether a block shows a command and what it prints.
func (b docsBlock) isTranscript() bool { return b.lang == "" && strings.HasPrefix(b.text, "$ ") }

// commandsIn returns the commands of a script that name the binary: their words without redirections. It knows as much
// of the shell's language as the pages use.
func commandsIn(script string) (commands [][]string) {
	script = strings.ReplaceAll(script, "\\\n", " ")
	var words []string
	word, inWord := "", false
	endWord := func() {
		if inWord {
			words = append(words, word)
		}
		word, inWord = "", false
	}
	end := func() {
		endWord()
		for len(words) > 0 && regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0]) {
			words = words[1:]
		}
		if len(words) > 0 && (words[0] == "capture" || words[0] == "bin/capture") {
			if i := slices.IndexFunc(words, func(w string) bool { return w == ">" || w == "<" }); i > 0 {
				words = words[:i]
			}
			commands = append(commands, words[1:])
		}
		words = nil
	}
	for i := 0; i < len(script); i++ {
		switch c := script[i]; c {
		case '\'', '"':
			j := i + 1 + strings.IndexByte(script[i+1:], c)
			word, inWord = word+script[i+1:j], true
			i = j
		case '#':
			if inWord {
				word += "#"
				continue
			}
			i += strings.IndexByte(script[i:]+"\n", '\n') - 1
		case ' ', '\t':
			endWord()
		case '\n', '|', ';', '&', '(', ')':
			end()
		case '>', '<':
			endWord()
			words = append(words, string(c))
		default:
			word, inWord = word+string(c), true
		}
	}
	end()
	return commands
}

// requireKnown fails if the build would refuse the command line as misused. Words of three dots stand for more.
func requireKnown(t *testing.T, at string, args []string) {
	t.Helper()
	args = slices.DeleteFunc(slices.Clone(args), func(word string) bool { return word == "..." })
	root := app.CommandLine(standard.Modules())
	command, rest, err := root.Find(args)
	require.NoError(t, err, "%s: capture %s", at, strings.Join(args, " "))
	require.NoError(t, command.ParseFlags(rest), "%s: capture %s", at, strings.Join(args, " "))
	if help, _ := command.Flags().GetBool("help"); !help && command.RunE != nil {
		require.NoError(t, command.ValidateArgs(command.Flags().Args()), "%s: capture %s", at, strings.Join(args, " "))
	}
}

var inline = regexp.MustCompile("`([^`]+)`")

// anchors returns the names by which a link can point at the headings of a page, as GitHub makes them.
func anchors(prose string) (names []string) {
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(prose, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

func TestTheDocsLinkToHeadingsThatThereAre(t *testing.T) {
	link, found := regexp.MustCompile(`\]\(([^)#:]*)#([^)]+)\)`), 0
	for page, text := range docsPages(t) {
		_, prose := docsBlocks(t, page, text)
		for _, target := range link.FindAllStringSubmatch(prose, -1) {
			linked := filepath.Join("..", filepath.Dir(page), target[1])
			if target[1] == "" {
				linked = filepath.Join("..", page)
			}
			text, err := os.ReadFile(linked)
			require.NoError(t, err, "%s: %s", page, target[0])
			_, prose := docsBlocks(t, linked, string(text))
			require.Contains(t, anchors(prose), target[2], "%s: %s", page, target[0])
			found++
		}
	}
	require.Greater(t, found, 10)
}

// Flags stand in the text without their command, too.
func TestTheDocsNameOnlyFlagsThatThereAre(t *testing.T) {
	flags := map[string]bool{}
	var collect func(command *cobra.Command)
	collect = func(command *cobra.Command) {
		command.InitDefaultHelpFlag()
		command.InitDefaultVersionFlag()
		note := func(flag *pflag.Flag) { flags["--"+flag.Name] = true }
		command.Flags().VisitAll(note)
		command.PersistentFlags().VisitAll(note)
		for _, below := range command.Commands() {
			collect(below)
		}
	}
	collect(app.CommandLine(standard.Modules()))
	named := regexp.MustCompile("`(--[a-z-]+)[^`]*`")
	found := 0
	for page, text := range docsPages(t) {
		_, prose := docsBlocks(t, page, text)
		for _, flag := range named.FindAllStringSubmatch(prose, -1) {
			require.True(t, flags[flag[1]], "%s: there is no flag %s", page, flag[1])
			found++
		}
	}
	require.Greater(t, found, 20)
}

func TestTheDocsNameOnlyCommandsKeysAndFilesThatThereAre(t *testing.T) {
	keys, groups := knownKeys(t)
	variable := regexp.MustCompile(`CAPTURE_[A-Z]+__[A-Z_]+[A-Z]`)
	sections := regexp.MustCompile(`^(?:` + strings.Join(sectionNames(keys), "|") + `)(?:\.[a-z0-9_]+)+$`)
	link := regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)
	commands := 0
	for page, text := range docsPages(t) {
		blocks, prose := docsBlocks(t, page, text)
		for _, block := range blocks {
			if block.lang == "sh" || block.isTranscript() && !strings.Contains(block.text, "did you mean") {
				for _, command := range commandsIn(strings.TrimPrefix(block.text, "$ ")) {
					requireKnown(t, block.at, command)
					commands++
				}
			}
		}
		for _, code := range inline.FindAllStringSubmatch(prose, -1) {
			code := strings.ReplaceAll(strings.Join(strings.Fields(code[1]), " "), `\|`, "|")
			for _, command := range commandsIn(code) {
				requireKnown(t, page, command)
				commands++
			}
			if sections.MatchString(code) && !strings.HasSuffix(code, ".yaml") {
				require.True(t, keys[code] || groups[code], "%s: there is no key %s", page, code)
			}
		}
		for _, name := range variable.FindAllString(text, -1) {
			path := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "CAPTURE_"), "__", "."))
			require.True(t, keys[path] || page == "docs/adding-a-module.md", "%s: there is no setting %s", page, name)
		}
		for _, target := range link.FindAllStringSubmatch(inline.ReplaceAllString(prose, ""), -1) {
			if target[1] == "" || strings.Contains(target[1], "://") {
				continue
			}
			linked := filepath.Join("..", filepath.Dir(page), target[1])
			_, err := os.Stat(linked)
			require.NoError(t, err, "%s: %s", page, target[0])
		}
	}
	require.Greater(t, commands, 80)
	var examples func(command *cobra.Command)
	examples = func(command *cobra.Command) {
		for _, words := range commandsIn(command.Example) {
			requireKnown(t, "help of "+command.CommandPath(), words)
		}
		for _, below := range command.Commands() {
			examples(below)
		}
	}
	examples(app.CommandLine(standard.Modules()))
}

// knownKeys returns the paths of the settings of the stock build, and those of their groups.
func knownKeys(t *testing.T) (keys, groups map[string]bool) {
	t.Helper()
	reference, err := app.Reference(standard.Modules())
	require.NoError(t, err)
	keys, groups = map[string]bool{}, map[string]bool{}
	var tree map[string]any
	require.NoError(t, yaml.Unmarshal(reference, &tree))
	var walk func(path string, value any)
	walk = func(path string, value any) {
		below, group := value.(map[string]any)
		if !group {
			keys[path] = true
			return
		}
		groups[path] = true
		for name, value := range below {
			walk(strings.TrimPrefix(path+"."+name, "."), value)
		}
	}
	walk("", tree)
	return keys, groups
}

func sectionNames(keys map[string]bool) (names []string) {
	for key := range keys {
		name, _, _ := strings.Cut(key, ".")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func TestTheDocsNameTheVersionOfGoThatTheModuleAsksFor(t *testing.T) {
	module, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(module)[1]
	require.Contains(t, docsPages(t)["README.md"], "With Go "+string(version)+" or newer")
}

func TestTheDocsShowConfigurationThatLoads(t *testing.T) {
	found := 0
	for page, text := range docsPages(t) {
		blocks, _ := docsBlocks(t, page, text)
		for _, block := range blocks {
			if block.lang != "yaml" {
				continue
			}
			require.NoError(t, yaml.Unmarshal([]byte(block.text), &map[string]any{}), block.at)
			if block.notOurYAML {
				continue
			}
			found++
			file := filepath.Join(t.TempDir(), "mine.yaml")
			secret := filepath.Join(t.TempDir(), "secret")
			require.NoError(t, os.WriteFile(secret, []byte("secret"), 0o600))
			networks := filepath.Join(t.TempDir(), "networks")
			require.NoError(t, os.WriteFile(networks, []byte("203.0.113.0/24\n"), 0o600))
			text := strings.NewReplacer("/run/secrets/kafka-password", secret, "/run/secrets/redis-password", secret,
				"/etc/capture/cdn.txt", networks).Replace(block.text)
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			_, err := app.Load(standard.Modules(), configs.Source{Files: []string{file}})
			require.NoError(t, err, block.at)
		}
	}
	require.Greater(t, found, 2)
}

// standIns take the place of programs that a laptop does not have, or that would take too long. make is asked whether
// it has the targets.
var standIns = map[string]string{
	"make": `for target in "$@"; do "$REAL_MAKE" -s -n -C "$CHECKOUT" "$target" >/dev/null; done`,
	"kubectl": `test "$1 $2 $3 $4" = "exec deploy/capture -- env"
cat "$CHECKOUT/app/posthogenv/testdata/compose.env"`,
	"docker": `case "$1" in build|run) ;; *) exit 1;; esac
while test $# -gt 0 && test "$1" != capture; do shift; done
test "$1 $2" != "capture --config" || test -f "$CHECKOUT/configs/production.yaml"`,
	"kafka-topics.sh":          `test "$1" = --bootstrap-server`,
	"kafka-acls.sh":            `test "$1" = --bootstrap-server`,
	"kafka-consumer-groups.sh": `test "$1" = --bootstrap-server`,
}

// stage is a running service, and what the commands of a page find around it.
type stage struct {
	*process
	environ []string
	replace *strings.Replacer
}

func newStage(t *testing.T) *stage {
	t.Helper()
	checkout, err := filepath.Abs("..")
	require.NoError(t, err)
	path, err := binary()
	require.NoError(t, err)
	realMake, err := exec.LookPath("make")
	require.NoError(t, err)
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	require.NoError(t, err)
	tools := t.TempDir()
	for name, script := range standIns {
		script = "#!/bin/sh\nset -eu\n" + script + "\n"
		require.NoError(t, os.WriteFile(filepath.Join(tools, name), []byte(script), 0o700))
	}
	require.NoError(t, os.Symlink(path, filepath.Join(tools, "capture")))
	p := run(t)
	require.NoError(t, os.Mkdir(filepath.Join(p.Dir, "bin"), 0o700))
	require.NoError(t, os.Symlink(path, filepath.Join(p.Dir, "bin", "capture")))
	require.NoError(t, os.Symlink(filepath.Join(checkout, "configs"), filepath.Join(p.Dir, "configs")))
	home := t.TempDir()
	return &stage{
		process: p,
		environ: []string{
			"PATH=" + tools + ":" + os.Getenv("PATH"), "HOME=" + home, "TOKEN=unused",
			"GOCACHE=" + strings.TrimSpace(string(cache)),
			"REAL_MAKE=" + realMake, "CHECKOUT=" + checkout,
			// A command finds the broker of the service, and a second service takes other ports.
			"CAPTURE_EMBEDDED__KAFKA_LISTEN=" + p.broker,
			"CAPTURE_TRANSPORT__LISTEN=127.0.0.1:0", "CAPTURE_ADMIN__LISTEN=127.0.0.1:0",
			"CAPTURE_TRANSPORT__DRAIN_DELAY=0s", "CAPTURE_DELIVERY__SPOOL__DIR=./data/spool",
		},
		replace: strings.NewReplacer(
			"http://localhost:8000", p.url, "http://127.0.0.1:8001", p.admin,
			"@127.0.0.1:8001", "@"+strings.TrimPrefix(p.admin, "http://"), "seconds=10", "seconds=1",
		),
	}
}

// run runs a script and returns what it prints. A script that is to be interrupted is when it has printed a line.
func (s *stage) run(t *testing.T, script string, interrupted bool) (out, said string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if interrupted && !strings.Contains(script, "tail") {
		// A broker of its own, beside that of the service.
		script = "export CAPTURE_EMBEDDED__KAFKA_LISTEN=127.0.0.1:0 CAPTURE_EMBEDDED__DATA_DIR=./other; " + script
	}
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", s.replace.Replace(script))
	command.Dir, command.Env = s.Dir, s.environ
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var errors bytes.Buffer
	printed := &watched{ready: make(chan struct{})}
	command.Stdout, command.Stderr = printed, &errors
	require.NoError(t, command.Start())
	if interrupted {
		select {
		case <-printed.ready:
		case <-ctx.Done():
		}
		require.NoError(t, syscall.Kill(-command.Process.Pid, syscall.SIGINT))
	}
	err = command.Wait()
	return string(printed.text), errors.String(), err
}

// watched is a buffer that tells of its first bytes.
type watched struct {
	text  []byte
	ready chan struct{}
}

func (w *watched) Write(text []byte) (int, error) {
	if len(w.text) == 0 && len(text) > 0 {
		close(w.ready)
	}
	w.text = append(w.text, text...)
	return len(text), nil
}

func TestTheDocsHaveCommandsThatRun(t *testing.T) {
	for page, text := range docsPages(t) {
		blocks, _ := docsBlocks(t, page, text)
		blocks = slices.DeleteFunc(blocks, func(b docsBlock) bool {
			return b.notRun || b.lang != "sh" && !b.isTranscript()
		})
		if len(blocks) == 0 {
			continue
		}
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			for _, block := range blocks {
				if block.file != "" {
					var content any
					require.NoError(t, yaml.Unmarshal([]byte(block.content), &content), block.at)
					file, isText := content.(string)
					if !isText {
						file = block.content
					}
					require.NoError(t, os.WriteFile(filepath.Join(s.Dir, block.file), []byte(file), 0o600))
				}
				switch {
				case block.isTranscript():
					line, want, _ := strings.Cut(strings.TrimPrefix(block.text, "$ "), "\n")
					out, said, _ := s.run(t, line, false)
					require.Equal(t, want, out+said, block.at)
				case block.interrupted:
					for line := range strings.Lines(block.text) {
						out, said, err := s.run(t, strings.TrimSpace(line), true)
						require.NoError(t, err, "%s: %s\n%s", block.at, line, said)
						require.NotEmpty(t, out, "%s: %s", block.at, line)
					}
				default:
					began := time.Now()
					out, said, err := s.run(t, block.text, false)
					require.NoError(t, err, "%s:\n%s\n%s", block.at, out, said)
					t.Logf("%s: %s", block.at, time.Since(began).Round(time.Millisecond))
				}
			}
		})
	}
}
