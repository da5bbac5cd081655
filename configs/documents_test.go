package configs_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
)

type library struct {
	Books configs.Files `key:"books" live:"true" doc:"What there is to read."`
}

func TestFilesAreReadWithTheConfigurationAndAgainWhenTheyChange(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")
	put(t, a, "one")
	put(t, b, "")
	source := configs.Source{Environ: []string{"CAPTURE_LIBRARY__BOOKS=" + a + "," + b}}.Read()
	load := func() (*configs.Set, error) {
		return configs.Load([]configs.Section{{Name: "library", Defaults: library{}}}, source)
	}
	set, err := load()
	require.NoError(t, err)
	require.Equal(t, []configs.File{{Path: a, Data: []byte("one")}, {Path: b, Data: []byte{}}},
		set.Section("library").(library).Books.All())
	text, err := set.YAML()
	require.NoError(t, err)
	require.Contains(t, string(text), "books: ["+a+", "+b+"] # CAPTURE_LIBRARY__BOOKS")

	live := configs.NewLive(set, load)
	books, err := configs.Current[library](live)
	require.NoError(t, err)
	put(t, a, "two")
	require.NotEqual(t, source.Digest(), source.Read().Digest(), "whoever watches the source sees it")
	source = source.Read()
	status, err := live.Reload()
	require.NoError(t, err)
	require.Equal(t, []string{"library.books"}, status.Changed)
	require.Equal(t, "two", string(books.Now().Books.All()[0].Data))

	source = configs.Source{Environ: []string{"CAPTURE_LIBRARY__BOOKS=" + dir + ",/nowhere/c.yaml"}}.Read()
	_, err = live.Reload()
	require.ErrorContains(t, err, dir+": cannot be read: it is a directory")
	require.ErrorContains(t, err, "/nowhere/c.yaml: cannot be read: no such file or directory")
	require.Equal(t, "two", string(books.Now().Books.All()[0].Data))
}
