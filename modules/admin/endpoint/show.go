package endpoint

import (
	"encoding/json"
	"net/http"
)

// Show answers with a value as JSON that people can read. It ignores that the client has left.
func Show(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(value)
}
