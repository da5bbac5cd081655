package module

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/opencapture/capture/modules/terminal"
)

// List prints rows in the form that --output asks for: as a table for people, or as JSON for programs, one object a
// line.
type List struct {
	out    io.Writer
	json   *json.Encoder // nil: a table
	widths []int
	rows   [][]string // rows that are not printed yet
}

// rowsTogether is how many rows are aligned and printed together. A list may have millions of rows.
const rowsTogether = 1000

// List begins a list with these columns. The caller calls Flush at the end.
func (use Invocation) List(columns ...string) *List {
	l := &List{out: terminal.NewWriter(use.Out), widths: make([]int, len(columns))}
	if use.Output == JSON {
		l.json = json.NewEncoder(l.out)
		l.json.SetEscapeHTML(false)
		return l
	}
	l.rows = append(l.rows, columns)
	return l
}

// Add adds a row: the cells of the table, and the object that JSON shows. Later versions may add fields to the object,
// but take none away and rename none.
func (l *List) Add(object any, cells ...any) error {
	if l.json != nil {
		return l.printed(l.json.Encode(object))
	}
	row := make([]string, len(l.widths))
	for i := range row {
		row[i] = cell(cells[i])
	}
	if l.rows = append(l.rows, row); len(l.rows) >= rowsTogether {
		return l.Flush()
	}
	return nil
}

// Flush prints the rows that Add was given. A column is as wide as its widest cell so far.
func (l *List) Flush() error {
	for _, row := range l.rows {
		for i, text := range row {
			l.widths[i] = max(l.widths[i], utf8.RuneCountInString(text))
		}
	}
	var text strings.Builder
	for _, row := range l.rows {
		for i, cell := range row {
			if i == len(row)-1 {
				text.WriteString(cell + "\n")
				break
			}
			fmt.Fprintf(&text, "%-*s  ", l.widths[i], cell)
		}
	}
	l.rows = nil
	_, err := io.WriteString(l.out, text.String())
	return l.printed(err)
}

func (l *List) printed(err error) error {
	if err != nil {
		return fmt.Errorf("print a list: %w", err)
	}
	return nil
}

// cell returns a value as the text of a cell. A value may hold any bytes that somebody has sent to the service.
func cell(value any) string {
	if text := fmt.Sprint(value); text != "" {
		return terminal.Escape(text)
	}
	return "-"
}
