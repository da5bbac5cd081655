package posthog

import (
	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
)

// heatmapData is the property that a heatmap is drawn from. It is the only property that moves to the heatmap event;
// all others are copied.
const heatmapData = "$heatmap_data"

// heatmapName is the name of the event that carries heatmap data.
const heatmapName = "$$heatmap"

// heatmapProperties are the properties of a heatmap event, in the order in which they are written.
var heatmapProperties = [...]string{
	heatmapData, "$viewport_height", "$viewport_width", "$session_id", "$prev_pageview_pathname",
	"$prev_pageview_max_scroll",
	"$current_url", "$raw_user_agent", "$ip", "$host", "$timezone", "$cookieless_extra", "$cookieless_mode",
}

// hasHeatmap reports whether an event of another name has data for heatmaps: clicks and moves, or how far the page
// before was scrolled.
func hasHeatmap(name string, found marks) bool {
	const scrolled = markPreviousPath | markCurrentURL
	return name != heatmapName && (found&markHeatmapData != 0 || found&scrolled == scrolled)
}

// splitHeatmap takes the heatmap data out of an event's properties and writes event.Heatmap.
func (d *document) splitHeatmap(found *object, event *events.Event) *events.Error {
	var values [len(heatmapProperties)][]byte
	size := 2
	for m := jsonscan.MembersOf(event.Raw.Properties); m.Next(); {
		for i, name := range heatmapProperties {
			if string(m.Key) == name {
				values[i] = m.Value
				break
			}
		}
	}
	for i, value := range values {
		if value != nil {
			size += len(heatmapProperties[i]) + len(`"":,`) + len(value)
		}
	}
	heatmap, err := d.arena.take(size)
	if err != nil {
		return err
	}
	heatmap = append(heatmap, '{')
	for i, value := range values {
		if value == nil {
			continue
		}
		if len(heatmap) > 1 {
			heatmap = append(heatmap, ',')
		}
		heatmap = append(heatmap, '"')
		heatmap = append(heatmap, heatmapProperties[i]...)
		heatmap = append(heatmap, '"', ':')
		heatmap = append(heatmap, value...)
	}
	heatmap = append(heatmap, '}')
	event.Heatmap = heatmap
	if found.marks&markHeatmapData == 0 {
		return nil
	}
	rest, err := d.arena.take(len(event.Raw.Properties))
	if err != nil {
		return err
	}
	event.Raw.Properties = jsonscan.AppendWithout(rest, event.Raw.Properties, func(key []byte) bool {
		return string(key) == heatmapData
	})
	return nil
}
