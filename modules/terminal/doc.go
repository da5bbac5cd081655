// Package terminal keeps what strangers have sent away from the terminals of operators.
//
// A terminal obeys some characters instead of showing them. They move the cursor, rename the window, hide what stands
// before them, or turn the order of the letters around. This package writes such a character as an escape of JSON, such
// as \u001b. So the escaped text of a JSON document is a JSON document with the same meaning. A byte that is no UTF-8
// becomes \ufffd.
//
// The characters are: the control characters C0, DEL and C1; the line and paragraph separators U+2028 and U+2029; and
// the format characters of Unicode (Cf), among them those that change the direction of text, the zero-width space and
// the tags. Not escaped are the joiners U+200C and U+200D, without which emoji and several scripts cannot be written,
// and the format characters that have a shape.
//
// The app puts a Writer between every command and its output, and the logger escapes every line. Code that prints a
// piece of such text within a line of its own calls Escape, because a line feed in the piece would forge a line.
package terminal
