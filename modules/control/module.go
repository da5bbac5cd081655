package control

import (
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/opencapture/capture/modules/admin/audit"
	"github.com/opencapture/capture/modules/admin/client"
	"github.com/opencapture/capture/modules/admin/endpoint"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
	"github.com/opencapture/capture/modules/project"
	"github.com/opencapture/capture/modules/store"
)

// Module lets operators set projects, restrictions and quotas.
//
// Provides operators' endpoints. Requires store.Records (modules/store), project.Files (modules/auth),
// events.Allowances (modules/quota), *audit.Log and client.Own (modules/admin), and *zap.Logger
// (modules/observability). Config section: none.
func Module() module.Module {
	return module.Module{
		Name:    "control",
		Options: fx.Provide(endpoint.AsEach(Endpoints)),
		Requires: []module.Requirement{
			module.Require[store.Records]("modules/store"),
			module.Require[project.Files]("modules/auth"),
			module.Require[events.Allowances]("modules/quota"),
			module.Require[*audit.Log]("modules/admin"),
			module.Require[client.Own]("modules/admin"),
			module.Require[*zap.Logger]("modules/observability"),
		},
		Commands: []module.Command{projectCommands().command(), restrictionCommands().command(), quotaCommand()},
	}
}
