package usage

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/admin/client"
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/module"
)

func command() module.Command {
	var ask client.Flags
	var from, to, token, resource string
	var resources []string
	for _, r := range events.Resources() {
		resources = append(resources, r.String())
	}
	return module.Command{
		Use: "usage", Short: "Show what each token has sent, by day, and how it ended",
		Long: `Shows what each token has sent to a running service, by day of UTC and kind of events, and how the events
have ended: received is the sum of accepted, dropped, rejected and failed. The row "(others)" counts tokens that are not
counted each for itself, "(no token)" requests without a usable token. Each node of an installation counts what it has
received itself.`,
		Example: `  capture usage
  capture usage --from 2026-11-01 --token phc_mine --output json`,
		Output: module.Table,
		Flags: func(flags *module.Flags) {
			ask.Add(flags)
			flags.StringVar(&from, "from", "", "the first `DAY`, such as 2026-11-30 (default: today)")
			flags.StringVar(&to, "to", "", "the last `DAY` (default: today)")
			flags.StringVar(&token, "token", "", "only this `TOKEN`")
			flags.StringVar(&resource, "resource", "", "only this `KIND` of events")
		},
		Values: map[string]any{"resource": resources},
		Run: func(use module.Invocation, own client.Own) error {
			if err := checkDays(from, to); err != nil {
				return err
			}
			service, err := ask.Client(own)
			if err != nil {
				return err
			}
			query := url.Values{"limit": {"1000"}}
			for name, value := range map[string]string{"from": from, "to": to, "token": token, "resource": resource} {
				if value != "" {
					query.Set(name, value)
				}
			}
			list := use.List("day", "token", "resource", "received", "accepted", "duplicates", "dropped", "rejected",
				"failed")
			for {
				var page api.Page[Row]
				if _, err := service.Get(use.Context, "/admin/usage?"+query.Encode(), &page); err != nil {
					return err
				}
				for i := range page.Items {
					if err := page.Items[i].print(list); err != nil {
						return err
					}
				}
				if page.Next == "" {
					return list.Flush()
				}
				query.Set("after", page.Next)
			}
		},
	}
}

// checkDays returns an error for what are no days, or not in their order. Empty: today.
func checkDays(from, to string) error {
	for name, day := range map[string]string{"from": from, "to": to} {
		if _, err := time.Parse(time.DateOnly, day); day != "" && err != nil {
			return module.Misusef("--%s must be a day such as 2026-11-30, got %q", name, day)
		}
	}
	if from != "" && to != "" && to < from {
		return module.Misusef("--to must not be before --from, got %s and %s", to, from)
	}
	return nil
}

func (r *Row) print(list *module.List) error {
	token := r.Token
	switch r.Group {
	case GroupOthers:
		token = "(others)"
	case GroupNoToken:
		token = "(no token)"
	}
	return list.Add(r, r.Day, token, r.Resource, r.Received, r.Accepted, r.Duplicates, reasons(r.Dropped),
		reasons(r.Rejected), reasons(r.Failed))
}

// reasons writes counts by reason: "12 quota, 3 rule".
func reasons(counts map[string]uint64) string {
	if len(counts) == 0 {
		return "0"
	}
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, strconv.FormatUint(counts[reason], 10)+" "+reason)
	}
	return strings.Join(parts, ", ")
}
