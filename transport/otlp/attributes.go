package otlp

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/transport/memory"
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

// textOf returns the text of the first key that has one which is not empty, or "". A number stands for its digits.
func textOf(attributes []*commonpb.KeyValue, keys ...string) string {
	for _, key := range keys {
		for _, attribute := range attributes {
			if attribute.GetKey() == key {
				if text := valueText(attribute.GetValue()); text != "" {
					return text
				}
			}
		}
	}
	return ""
}

func valueText(value *commonpb.AnyValue) string {
	switch v := value.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_IntValue:
		return strconv.FormatInt(v.IntValue, 10)
	case *commonpb.AnyValue_DoubleValue:
		if !math.IsNaN(v.DoubleValue) && !math.IsInf(v.DoubleValue, 0) {
			return strconv.FormatFloat(v.DoubleValue, 'f', -1, 64)
		}
	}
	return ""
}

// ellipsis ends a text that was cut.
const ellipsis = "…"

// trimmer bounds what resources and scopes add to each of their events. It shortens the decoded request in place.
type trimmer struct {
	// text is the longest text, in bytes. all is how many bytes of attributes a resource may have.
	text, all int
	// cut counts the texts that were cut, and omitted the attributes that were left out.
	cut, omitted int

	// lease is for the texts that were cut. err is set if it could not be had: the request is then to be given up.
	lease *memory.Lease
	err   *events.Error
}

// attributes cuts the texts in attributes and leaves out the attributes for which there is no room.
func (t *trimmer) attributes(of attributes) attributes {
	left := t.all
	of.list = slices.DeleteFunc(of.list, func(attribute *commonpb.KeyValue) bool {
		size := len(attribute.GetKey())
		if size <= left {
			size += t.value(attribute.GetValue(), left-size)
		}
		if size > left {
			t.omitted++
			delete(of.byKey, attribute.GetKey())
			return true
		}
		left -= size
		return false
	})
	return of
}

// value cuts the texts in a value and returns about how many bytes it takes. It stops as soon as they are more than
// left.
func (t *trimmer) value(value *commonpb.AnyValue, left int) int {
	size := 8 // A number, or the punctuation.
	switch v := value.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		v.StringValue = t.shorten(v.StringValue)
		size += len(v.StringValue)
	case *commonpb.AnyValue_BytesValue:
		if len(v.BytesValue) > t.text/2 { // A byte takes two digits.
			v.BytesValue = v.BytesValue[:t.text/2]
			t.cut++
		}
		size += 2 * len(v.BytesValue)
	case *commonpb.AnyValue_ArrayValue:
		for _, element := range v.ArrayValue.GetValues() {
			if size += t.value(element, left-size); size > left {
				break
			}
		}
	case *commonpb.AnyValue_KvlistValue:
		for _, attribute := range v.KvlistValue.GetValues() {
			if size += len(attribute.GetKey()); size <= left {
				size += t.value(attribute.GetValue(), left-size)
			}
			if size > left {
				break
			}
		}
	}
	return size
}

// shorten returns a text that is not too long. A cut text ends with an ellipsis.
func (t *trimmer) shorten(text string) string {
	if len(text) <= t.text {
		return text
	}
	t.cut++
	end := t.text
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	if fault := t.lease.Take(int64(end + len(ellipsis))); fault != nil {
		t.err = fault
		return ""
	}
	return text[:end] + ellipsis
}

// scope shortens the name and the version of a scope.
func (t *trimmer) scope(scope *commonpb.InstrumentationScope) {
	if scope != nil {
		scope.Name, scope.Version = t.shorten(scope.GetName()), t.shorten(scope.GetVersion())
	}
}

// note says what was shortened, or "".
func (t *trimmer) note() string {
	if t.cut == 0 && t.omitted == 0 {
		return ""
	}
	return fmt.Sprintf("all events of a resource repeat it: %d texts of more than %d bytes were cut, "+
		"and %d attributes beyond %d bytes of a resource were left out", t.cut, t.text, t.omitted, t.all)
}
