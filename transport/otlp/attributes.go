package otlp

import (
	"slices"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
)

// attributes are the attributes of a span, record or resource that have a value. Of several attributes with one key
// only the last is among them.
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
	list = slices.DeleteFunc(slices.Clone(list), func(attribute *commonpb.KeyValue) bool {
		return byKey[attribute.GetKey()] != attribute
	})
	return attributes{list, byKey}
}

// textOf returns the text of the first key that has one which is not empty, or "".
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
