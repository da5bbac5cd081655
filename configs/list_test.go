package configs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
)

type club struct {
	Guests configs.List `key:"guests" live:"true" doc:"Who may come in."`
}

func loadClub(source configs.Source) (club, error) {
	set, err := configs.Load([]configs.Section{{Name: "club", Defaults: club{Guests: configs.ListOf("ann")}}}, source)
	if err != nil {
		return club{}, err
	}
	return set.Section("club").(club), nil
}

// guests returns the texts of the list.
func (c club) guests() []string {
	texts := []string{}
	for _, item := range c.Guests.Items() {
		texts = append(texts, item.Text)
	}
	return texts
}

func put(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func TestAListIsReadLikeAnyOther(t *testing.T) {
	file := filepath.Join(t.TempDir(), "club.yaml")
	for text, want := range map[string][]string{
		"":                           {"ann"},
		"club: {guests: []}":         {},
		"club: {guests: [bob, cat]}": {"bob", "cat"},
		"club: {guests: 'bob, cat'}": {"bob", "cat"},
		"club: {guests: [':bob']}":   {":bob"},
	} {
		put(t, file, text)
		got, err := loadClub(configs.Source{Files: []string{file}})
		require.NoError(t, err)
		require.Equal(t, want, got.guests(), text)
	}
	got, err := loadClub(configs.Source{Environ: []string{"CAPTURE_CLUB__GUESTS=bob,,cat"}})
	require.NoError(t, err)
	require.Equal(t, []string{"bob", "cat"}, got.guests())
}

func TestAnEntryOfAListMayNameAFile(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.txt"), filepath.Join(dir, "b.txt")
	put(t, a, "# who came last year\r\n\r\n  bob # with a friend\r\ncat\r\n")
	put(t, b, "dan")
	got, err := loadClub(configs.Source{Environ: []string{"CAPTURE_CLUB__GUESTS=file:" + a + ",eve,file:" + b}})
	require.NoError(t, err)
	require.Equal(t, []configs.Item{
		{Text: "bob", File: "file:" + a, Line: 3}, {Text: "cat", File: "file:" + a, Line: 4}, {Text: "eve"},
		{Text: "dan", File: "file:" + b, Line: 1},
	}, got.Guests.Items())
	require.Equal(t, "file:"+a+", line 3", got.Guests.Items()[0].Name())
	require.Equal(t, "eve", got.Guests.Items()[2].Name())
}

func TestAFileOfAListThatCannotBeReadIsAFault(t *testing.T) {
	dir := t.TempDir()
	missing, empty := filepath.Join(dir, "missing"), filepath.Join(dir, "empty")
	put(t, empty, "# nobody\n\n")
	_, err := loadClub(configs.Source{Environ: []string{
		"CAPTURE_CLUB__GUESTS=file:" + missing + ",file:" + empty + ",file:" + dir,
	}})
	require.ErrorContains(t, err, "club.guests: ")
	require.ErrorContains(t, err, "file:"+missing+": cannot be read: no such file or directory")
	require.ErrorContains(t, err, "file:"+empty+": holds nothing but comments")
	require.ErrorContains(t, err, "file:"+dir+": cannot be read: it is a directory")
	require.ErrorContains(t, err, "(CAPTURE_CLUB__GUESTS)")
}

func TestTheConfigurationIsPrintedWithTheFileAndNotWithWhatItHolds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "guests.txt")
	put(t, file, "bob")
	set, err := configs.Load([]configs.Section{{Name: "club", Defaults: club{}}},
		configs.Source{Environ: []string{"CAPTURE_CLUB__GUESTS=file:" + file}})
	require.NoError(t, err)
	text, err := set.YAML()
	require.NoError(t, err)
	require.Contains(t, string(text), "guests: ['file:"+file+"'] # CAPTURE_CLUB__GUESTS")
}

// Whoever watches a source compares what its files hold with what they held when the source was loaded.
func TestTheDigestOfASourceTellsOfTheFilesOfLists(t *testing.T) {
	dir := t.TempDir()
	config, guests := filepath.Join(dir, "club.yaml"), filepath.Join(dir, "guests.txt")
	put(t, config, "club: {guests: ['file:"+guests+"']}")
	put(t, guests, "bob")
	source := configs.Source{Files: []string{config}}.Read()
	got, err := loadClub(source)
	require.NoError(t, err)
	require.Equal(t, []string{"bob"}, got.guests())
	require.Equal(t, source.Digest(), source.Read().Digest())

	put(t, guests, "cat")
	require.NotEqual(t, source.Digest(), source.Read().Digest())
	source = source.Read()
	put(t, guests, "dan") // The source holds what it has read.
	got, err = loadClub(source)
	require.NoError(t, err)
	require.Equal(t, []string{"cat"}, got.guests())

	put(t, guests, "")
	source = source.Read()
	_, err = loadClub(source)
	require.ErrorContains(t, err, "holds nothing but comments")
	require.Equal(t, source.Digest(), source.Read().Digest())
	put(t, guests, "eve")
	require.NotEqual(t, source.Digest(), source.Read().Digest(), "a file that was refused is watched as well")

	put(t, config, "club: {guests: [bob]}")
	source = source.Read()
	_, err = loadClub(source)
	require.NoError(t, err)
	put(t, guests, "nobody asks")
	require.Equal(t, source.Digest(), source.Read().Digest())
}
