package terminal

import (
	"io"
	"slices"
	"sync"
	"unicode/utf8"
)

// Writer escapes what is written to it, and keeps line feeds and tabs. It is safe for concurrent use.
type Writer struct {
	out io.Writer

	mu sync.Mutex
	// begun is the beginning of a character whose other bytes come with the next write.
	begun []byte
}

// NewWriter returns a writer to out. If out is a Writer, it is returned as it is.
func NewWriter(out io.Writer) *Writer {
	if w, ok := out.(*Writer); ok {
		return w
	}
	return &Writer{out: out}
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := p
	if len(w.begun) > 0 {
		text = slices.Concat(w.begun, p)
		w.begun = nil
	}
	if cut := len(text) - unfinished(text); cut < len(text) {
		w.begun = append(w.begun, text[cut:]...)
		text = text[:cut]
	}
	if _, err := w.out.Write(EscapeLines(text)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// unfinished returns how many bytes at the end of the text begin a character that needs more bytes.
func unfinished(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if b := text[len(text)-n]; utf8.RuneStart(b) {
			if !utf8.FullRune(text[len(text)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// Raw returns the writer behind a Writer, and any other writer as it is. It is for text that means to be obeyed: a
// colour, or a carriage return. The caller escapes everything else that it writes there.
func Raw(out io.Writer) io.Writer {
	if w, ok := out.(*Writer); ok {
		return w.out
	}
	return out
}

// Style is how a terminal shows a piece of text.
type Style string

// The styles that commands use.
const (
	Plain Style = ""
	Bold  Style = "\x1b[1m"
	Dim   Style = "\x1b[2m"
	Cyan  Style = "\x1b[36m"
)

// Paint returns the escaped text in the style, for Raw.
func (s Style) Paint(text string) string {
	if s == Plain {
		return Escape(text)
	}
	return string(s) + Escape(text) + "\x1b[0m"
}
