package control

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

// projects returns the records of projects.
func projects(records store.Records, files project.Files) *api.Collection {
	return &api.Collection{
		Kind: project.Kind, Things: "projects", Path: "/admin/projects", Name: "token",
		About:   "The project's token, percent-encoded.",
		Records: records, CheckName: checkToken, Check: checkProject,
		Refuse: func(token string) error { return inFile(files, token) },
	}
}

// inFile returns the problem of a project that stands in a file, whose record in the store nobody would look at.
func inFile(files project.Files, token string) error {
	if files.InFile(token) == nil {
		return nil
	}
	return api.Problemf(http.StatusConflict, "the project %q stands in a file of auth.projects, which goes before the "+
		"shared state: change the file", token)
}

// checkToken returns an error for what cannot be a token.
func checkToken(token string) error {
	clean, fault := events.CheckToken(token)
	switch {
	case fault != "":
		return fmt.Errorf("no request has such a token: %s", fault)
	case clean != token:
		return errors.New("no request has such a token: white space around it")
	}
	return nil
}

// fieldEnabled is in every record that is written here, since a record without a field does not exist.
const fieldEnabled = "enabled"

// checkProject reads the fields of a project and returns them as they are to be kept.
func checkProject(_ string, fields store.Fields) (store.Fields, error) {
	record, err := project.Parse(fields)
	if err != nil {
		return nil, err
	}
	return fieldsOf(&record), nil
}

func fieldsOf(record *project.Record) store.Fields {
	fields := record.Fields()
	if !record.Disabled {
		fields[fieldEnabled] = "true"
	}
	return fields
}
