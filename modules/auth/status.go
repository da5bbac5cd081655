package auth

import (
	"fmt"
	"net/http"

	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

// status tells an operator what is known of projects.
type status struct {
	Mode           string `json:"mode"`
	OnStoreFailure string `json:"on_store_failure"`
	// Files is how many projects stand in files, and Kept how many of other authenticators are kept in memory.
	Files          int      `json:"files"`
	Kept           int      `json:"kept"`
	Authenticators []string `json:"authenticators"`
	// Broken are the records with faults that were met last.
	Broken  []brokenRecord `json:"broken"`
	Replica *replicaStatus `json:"replica,omitempty"`
}

func (a *Auth) status() status {
	terms := a.terms.Now()
	s := status{
		Mode: terms.Mode, OnStoreFailure: terms.OnStoreFailure, Files: len(terms.files),
		Kept: a.directory.known.Len(), Broken: a.directory.broken.list(), Replica: a.replica.status(),
	}
	for _, authenticator := range a.directory.authenticators {
		s.Authenticators = append(s.Authenticators, authenticator.Name())
	}
	return s
}

// InFile implements project.Files.
func (a *Auth) InFile(token string) *project.Record {
	if known := a.terms.Now().files[token]; known != nil {
		return &known.record
	}
	return nil
}

// Endpoint shows operators what is known of projects.
func (a *Auth) Endpoint() endpoint.Endpoint {
	return endpoint.Endpoint{
		Pattern: "GET /admin/auth",
		About:   "Who may send: the mode, how many projects are known, and the records of projects that have faults.",
		Access:  endpoint.Reader,
		Operation: endpoint.Operation{Answers: []endpoint.Answer{
			{Status: http.StatusOK, About: "What is known of projects.", Of: status{}},
		}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			endpoint.Show(w, a.status())
		}),
	}
}

// StartFact says who may send.
func (a *Auth) StartFact() module.StartFact {
	return module.StartFact{Rank: 35, Name: "open to", Text: func() string {
		terms := a.terms.Now()
		switch terms.Mode {
		case ModeStrict:
			return fmt.Sprintf("tokens of projects only, of which %d are in files (auth.mode: strict)",
				len(terms.files))
		case ModeKnown:
			return "every token; those of no project are counted and warned of (auth.mode: known)"
		default:
			return "every token (auth.mode: open; set strict to take those of your projects only)"
		}
	}}
}

// StoreUser says what becomes of requests without the shared state.
func (a *Auth) StoreUser() store.User {
	return store.User{Name: "auth", Closed: func() bool { return a.terms.Now().closed() }}
}
