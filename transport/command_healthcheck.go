package transport

import (
	"fmt"
	"net/http"
	"time"

	"github.com/opencapture/capture/modules/module"
)

func healthcheckCommand() module.Command {
	var p peer
	var live bool
	return module.Command{
		Use: "healthcheck", Short: "Ask the service whether it is ready",
		Long: `Asks the service on this machine whether it is ready for events, at /_readiness of transport.listen, and
prints the answer. The exit code is 0 if it is, and 1 if it is not, if it does not answer, or if the configuration has a
fault in that key. The command is for images without a shell, such as the one of the Dockerfile. An orchestrator that
can ask by HTTP needs no command.`,
		Example: `  capture healthcheck
  capture healthcheck --live --timeout 1s --host http://localhost:8000`,
		// The service goes on while a file that is being changed has faults, and it may have files that the command has
		// not been given.
		DespiteFaults: true,
		Flags: func(flags *module.Flags) {
			p.flags(flags, 3*time.Second)
			flags.BoolVar(&live, "live", false, "ask whether the process is alive, at /_liveness")
		},
		Run: func(use module.Invocation, cfg Config) error {
			url, err := p.url(cfg)
			if err != nil {
				return err
			}
			path := "/_readiness"
			if live {
				path = "/_liveness"
			}
			answer, err := p.ask(use.Context, http.MethodGet, url+path, "")
			if err != nil {
				return err
			}
			if answer.status != http.StatusOK {
				return answer.refusal()
			}
			_, err = fmt.Fprintln(use.Out, answer.body)
			return err
		},
	}
}
