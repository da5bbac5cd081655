package control

import (
	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/admin/api"
	"github.com/opencapture/capture/modules/produce"
	"github.com/opencapture/capture/modules/restriction"
	"github.com/opencapture/capture/modules/store"
)

// restrictions returns the records of rules. Rules send events only to topics of the configuration in force.
func restrictions(records store.Records, live *configs.Live) *api.Collection {
	return &api.Collection{
		Kind: restriction.Kind, Things: "restrictions", Path: "/admin/restrictions", Name: "name",
		About:   "The name of the rule, which its author has given it.",
		Records: records, CheckName: restriction.CheckName,
		Check: func(_ string, fields store.Fields) (store.Fields, error) {
			rule, err := restriction.Parse(fields)
			if err != nil {
				return nil, err
			}
			// A build without Kafka has no topics to look after.
			if topics, err := configs.SectionOf[produce.Topics](live.View().Set()); err == nil {
				if err := rule.CheckTopic(topics.Names()); err != nil {
					return nil, err
				}
			}
			return rule.Fields(), nil
		},
	}
}

func restrictionCommands() *recordCommands {
	c := &recordCommands{
		word: "restriction", path: "/admin/restrictions", argument: "NAME",
		about: `A restriction is a rule about events of a project: they are dropped, moved to overflow, set aside, sent
to another topic, or kept from persons. The record of a rule is in the state that the nodes share; its name is yours to
choose. Rules of the configuration (routing.drop and others) are not shown here.`,
		example:   "noisy-page token=phc_mine action=drop 'events=$pageview'",
		checkName: restriction.CheckName,
		check: func(_ string, fields map[string]string) error {
			_, err := restriction.Parse(fields)
			return err
		},
		columns: []string{"token", "action", "topic", "distinct_ids", "events", "sessions", "expires", "comment"},
	}
	for _, f := range restriction.Reference() {
		c.fields = append(c.fields, field{f.Name, f.About})
	}
	return c
}
