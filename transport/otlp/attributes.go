package otlp

import (
	"slices"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
)

// attributes are those of a span, record or resource that say something: those that have a value, and of several with one key
// the last.
type attributes struct {
	list  []*commonpb.KeyValue
	byKey map[string]*commonpb.KeyValue
}

func newAttributes(list []*commonpb.KeyValue) attributes {
	byKey := make(map[string]*commonpb.KeyValue, len(list))
	for _, attribute := range list {
		if attribute.GetValue().GetValue() != nil {
			byKey[attribute.GetKey()] = attribute
		}
	}
	list = slices.DeleteFunc(slices.Clone(list), func(attribute *commonpb.KeyValue) bool { return byKey[attribute.GetKey()] != attribute })
	return attributes{list, byKey}
}

// textOf returns the text of the first of the keys that has one, other than an empty one.
func textOf(attributes []*commonpb.KeyValue, keys ...string) string {
	for _, key := range keys {
		for _, attribute := range attributes {
			if attribute.GetKey() == key {
				if text := attribute.GetValue().GetStringValue(); text != "" {
					return text
				}
			}
		}
	}
	return ""
}
