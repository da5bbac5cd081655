package project

// Files tells which projects stand in files of the configuration. modules/auth implements it.
type Files interface {
	// InFile returns the record that a file has of the project, or nil. It goes before the record in the shared state.
	InFile(token string) *Record
}
