package produce

import (
	"errors"
	"fmt"
)

// Class says why a message is not in Kafka. Its text is a label of metrics and the reason in a dead letter.
type Class uint8

// The first five classes pass: the owner of the message must send it again, although Kafka may have it already. The
// others are refusals: Kafka will never take the message.
const (
	// Unavailable: Kafka, or the broker that the message needs, does not answer or cannot store it.
	Unavailable Class = iota
	// Timeout: there was no acknowledgement in time.
	Timeout
	// Forbidden: this user may not write to the topic.
	Forbidden
	// Missing: the topic does not exist.
	Missing
	// Behind: a message in front of this one in its partition has failed.
	Behind

	// TooLarge: the message is larger than its topic allows.
	TooLarge
	// Invalid: Kafka finds a fault with the message itself.
	Invalid

	classCount
)

var classNames = [classCount]string{"unavailable", "timeout", "forbidden", "missing", "behind", "too_large", "invalid"}

// Classes returns every class.
func Classes() []Class {
	classes := make([]Class, classCount)
	for i := range classes {
		classes[i] = Class(i)
	}
	return classes
}

// String returns the word for the class.
func (c Class) String() string {
	if c < classCount {
		return classNames[c]
	}
	return "unknown"
}

// IsRefusal reports whether Kafka will never take a message whose report has this class.
func (c Class) IsRefusal() bool { return c >= TooLarge }

// Error is the report on a message that Kafka has not acknowledged.
type Error struct {
	Class Class
	err   error
}

// Errorf makes an Error; %w wraps as in fmt.Errorf.
func Errorf(class Class, format string, args ...any) *Error {
	return &Error{Class: class, err: fmt.Errorf(format, args...)}
}

func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the message with its causes, so that errors.Is and errors.As see them.
func (e *Error) Unwrap() error { return e.err }

// ClassOf returns the class of the first Error in err's chain, or Unavailable.
func ClassOf(err error) Class {
	var classified *Error
	if errors.As(err, &classified) {
		return classified.Class
	}
	return Unavailable
}

// IsRefusal reports whether err says that Kafka will never take the message.
func IsRefusal(err error) bool { return err != nil && ClassOf(err).IsRefusal() }
