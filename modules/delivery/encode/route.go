package encode

import (
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/produce"
)

// route returns the topic that an event goes to, and whether the event's key chooses the partition. A message whose
// order does not matter goes to any partition.
func route(topics *produce.Topics, event *events.Event) (topic string, keyed bool) {
	routing := &event.Routing
	switch {
	case routing.DLQ != "":
		return topics.DLQ, true
	case routing.Topic != "":
		return routing.Topic, true
	}
	switch event.Lane {
	case events.LaneHistorical:
		return topics.Historical, true
	case events.LaneExceptions:
		return topics.Exceptions, true
	case events.LaneHeatmaps:
		return topics.Heatmaps, true
	case events.LaneClientWarnings:
		return topics.ClientWarnings, true
	case events.LaneLogs:
		return topics.Logs, true
	case events.LaneRecordings:
		if routing.Overflow {
			return topics.RecordingsOverflow, true
		}
		return topics.Recordings, true
	case events.LaneAI:
		if routing.Overflow && topics.AIOverflow != "" {
			return topics.AIOverflow, !routing.Unkeyed
		}
		return topics.AI, true
	default:
		if routing.Overflow {
			return topics.Overflow, !routing.Unkeyed && !routing.SkipPerson
		}
		return topics.Events, !routing.SkipPerson
	}
}

// intended returns the topic that an event would go to if it were not set aside.
func intended(topics *produce.Topics, event *events.Event) string {
	alive := *event
	alive.Routing.DLQ = ""
	topic, _ := route(topics, &alive)
	return topic
}

// Topic returns the topic of the events of a lane that no rule sends elsewhere.
func Topic(topics *produce.Topics, lane events.Lane) string {
	topic, _ := route(topics, &events.Event{Lane: lane})
	return topic
}
