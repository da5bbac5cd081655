package warnings

import (
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxRemembered is how many pairs of token and kind are remembered. It bounds the memory, because strangers can send
// any number of tokens. The throttle forgets the pair first that has not come up for longest.
const maxRemembered = 10_000

// throttle lets one warning of a kind to a token pass in an interval and counts the others. It is not safe for
// concurrent use.
type throttle struct {
	told *simplelru.LRU[subject, *record]
}

type subject struct {
	token string
	kind  kind
}

// record says when a project was last warned, and how many warnings were held back since.
type record struct {
	at   time.Time
	held int
}

func newThrottle() *throttle {
	told, err := simplelru.NewLRU[subject, *record](maxRemembered, nil)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &throttle{told: told}
}

// pass reports whether a warning that comes up at the given time may be sent, and how many were held back before it.
func (t *throttle) pass(token string, kind kind, at time.Time, interval time.Duration) (held int, ok bool) {
	last, known := t.told.Get(subject{token, kind})
	if !known {
		t.told.Add(subject{strings.Clone(token), kind}, &record{at: at})
		return 0, true
	}
	if at.Sub(last.at) < interval {
		last.held++
		return 0, false
	}
	held = last.held
	*last = record{at: at}
	return held, true
}
