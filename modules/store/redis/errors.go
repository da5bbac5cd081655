package redis

import (
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/opencapture/capture/modules/store"
)

// fate is what the end of a command means.
type fate uint8

const (
	// fine: the server has answered.
	fine fate = iota
	// unknown: the server does not know the script.
	unknown
	// moved: another server of the Cluster has the key.
	moved
	// away: no answer, or one that says that the server cannot serve at present.
	away
	// wrong: the command cannot be done, now or later.
	wrong
)

// awayReplies are how replies begin of servers that cannot serve at present, or not us.
var awayReplies = []string{
	"LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOREPLICAS", "MISCONF", "OOM", "BUSY",
	"UNKILLABLE", "NOAUTH", "WRONGPASS", "NOPERM", "ERR max number of clients",
}

func fateOf(err error) fate {
	if err == nil || errors.Is(err, redis.Nil) {
		return fine
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return away
	}
	text := reply.Error()
	switch {
	case strings.HasPrefix(text, "NOSCRIPT"):
		return unknown
	case strings.HasPrefix(text, "MOVED "), strings.HasPrefix(text, "ASK "):
		return moved
	}
	// What went wrong within a script stands behind "ERR ", and before the place in the script.
	text = strings.TrimPrefix(text, "ERR Error running script: ")
	for _, prefix := range awayReplies {
		if strings.HasPrefix(text, prefix) || strings.Contains(text, "-"+prefix) {
			return away
		}
	}
	return wrong
}

// unavailable wraps an error that says why the store does not answer.
func unavailable(err error) error { return fmt.Errorf("%w: %w", store.ErrUnavailable, err) }

// asError returns what a caller is told of the end of a command.
func asError(err error) error {
	switch fateOf(err) {
	case fine:
		return nil
	case wrong:
		return fmt.Errorf("redis: %w", err)
	default:
		return unavailable(err)
	}
}

var (
	errShape   = errors.New("the answer of Redis has another shape than expected")
	errStopped = errors.New("the store has stopped")
	errLate    = errors.New("too many calls wait for Redis")
	errUnknown = errors.New("the servers of the Redis Cluster are not known")
)
