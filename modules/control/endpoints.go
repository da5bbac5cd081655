package control

import (
	"slices"

	"go.uber.org/zap"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

// Endpoints returns the endpoints of the package. Changes are noted in the audit log.
func Endpoints(
	records store.Records, files project.Files, allowances events.Allowances, live *configs.Live, auditLog *audit.Log,
	log *zap.Logger,
) []endpoint.Endpoint {
	a := api.New(auditLog, log)
	return slices.Concat(
		projects(records, files).Endpoints(a),
		(&quotas{records, files, allowances}).endpoints(a),
		restrictions(records, live).Endpoints(a),
	)
}

func projectCommands() *recordCommands {
	c := &recordCommands{
		word: "project", path: "/admin/projects", argument: "TOKEN",
		about: `A project is who may send with a token, and how much. The record of a project is in the state that the
nodes share; its name is the token. Projects in files (auth.projects) are not shown here.`,
		example:   "phc_mine name=Shop 'quotas=events=1000000/month' origins=https://shop.example",
		checkName: checkToken,
		check: func(name string, fields map[string]string) error {
			_, err := checkProject(name, fields)
			return err
		},
		columns: []string{"name", "enabled", "quotas", "rates"},
	}
	for _, f := range project.Reference() {
		c.fields = append(c.fields, field{f.Name, f.About})
	}
	return c
}
