package usage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencapture/capture/modules/events"
)

// The groups of rows that belong to no single token.
const (
	// GroupOthers has the tokens that are not counted each for itself.
	GroupOthers = "others"
	// GroupNoToken has the events of requests without a usable token.
	GroupNoToken = "no_token"
)

// Row is what a token has sent of one resource on one day. Received equals the sum of accepted and the counts of
// dropped, rejected and failed.
type Row struct {
	Day        string            `json:"day" doc:"The day of UTC on which the requests arrived." format:"date"`
	Token      string            `json:"token" doc:"The project's token. Empty for a group."`
	Group      string            `json:"group,omitempty" doc:"Whose events the row counts if they are not those of one token: others, of tokens that are not counted each for itself; no_token, of requests without a usable token." enum:"others,no_token"`
	Resource   string            `json:"resource" doc:"What kind of events the row counts." enum:"events,recordings,exceptions,ai,logs,surveys"`
	Since      time.Time         `json:"since" doc:"When the counting of the row began. What a token sent before it had a row is in the group others."`
	Received   uint64            `json:"received" doc:"Events that were received and have ended. Equal to accepted and the sums of dropped, rejected and failed."`
	Accepted   uint64            `json:"accepted" doc:"Events that are safe."`
	Duplicates uint64            `json:"duplicates" doc:"Those of the accepted events that an earlier request had brought."`
	Dropped    map[string]uint64 `json:"dropped,omitempty" doc:"Sound events that the service's policy did not keep, by reason."`
	Rejected   map[string]uint64 `json:"rejected,omitempty" doc:"Events that were at fault, by reason."`
	Failed     map[string]uint64 `json:"failed,omitempty" doc:"Events that the client was told to send again, by reason."`
	Bytes      uint64            `json:"bytes" doc:"Length of the JSON in the accepted events, duplicates left out: of properties, $set and $set_once, or of a recording's snapshots."`
}

// byState returns the reasons of a state.
func (r *Row) byState(state events.State) *map[string]uint64 {
	switch state {
	case events.StateDropped:
		return &r.Dropped
	case events.StateRejected:
		return &r.Rejected
	default:
		return &r.Failed
	}
}

// newRow returns the row of the resource.
func newRow(token, group string, of *daily, resource events.Resource) Row {
	c := of.of[resource]
	r := Row{
		Day: of.day.String(), Token: token, Group: group, Resource: resource.String(),
		Since:    time.Unix(0, of.since).UTC().Truncate(time.Millisecond),
		Received: c.received, Accepted: c.accepted, Duplicates: c.duplicates, Bytes: c.bytes,
	}
	for _, e := range c.ended {
		reasons := r.byState(e.state)
		if *reasons == nil {
			*reasons = map[string]uint64{}
		}
		(*reasons)[string(e.reason)] += e.n
	}
	return r
}

// counts returns what the row counts.
func (r *Row) counts() *counts {
	c := &counts{received: r.Received, accepted: r.Accepted, duplicates: r.Duplicates, bytes: r.Bytes}
	for _, state := range []events.State{events.StateDropped, events.StateRejected, events.StateFailed} {
		for reason, n := range *r.byState(state) {
			c.end(state, events.Reason(reason), n)
		}
	}
	return c
}

// sum returns how many events have ended.
func (r *Row) sum() uint64 {
	sum := r.Accepted
	for _, reasons := range []map[string]uint64{r.Dropped, r.Rejected, r.Failed} {
		for _, n := range reasons {
			sum += n
		}
	}
	return sum
}

// check returns an error for a row that this version has not written.
func (r *Row) check(d day) error {
	_, err := events.ParseResource(r.Resource)
	switch {
	case err != nil:
		return fmt.Errorf("the resource %w", err)
	case r.Day != d.String():
		return fmt.Errorf("the day is %q", r.Day)
	case r.Group != "" && r.Group != GroupOthers && r.Group != GroupNoToken:
		return fmt.Errorf("the group is %q", r.Group)
	case (r.Token == "") == (r.Group == ""):
		return fmt.Errorf("the token is %q, the group %q", r.Token, r.Group)
	case r.Received != r.sum():
		return fmt.Errorf("%d events were received, and %d have ended", r.Received, r.sum())
	}
	return nil
}

// compareRows orders rows by day, token, group and resource.
func compareRows(a, b *Row) int {
	return cmp.Or(strings.Compare(a.Day, b.Day), strings.Compare(a.Token, b.Token), strings.Compare(a.Group, b.Group),
		strings.Compare(a.Resource, b.Resource))
}

// sorted puts the rows in order, and joins rows of one group.
func sorted(rows []Row) []Row {
	slices.SortFunc(rows, func(a, b Row) int { return compareRows(&a, &b) })
	joined := rows[:0]
	for i := range rows {
		if n := len(joined); n > 0 && compareRows(&joined[n-1], &rows[i]) == 0 {
			joined[n-1].add(&rows[i])
			continue
		}
		joined = append(joined, rows[i])
	}
	return joined
}

// add adds the counts of another row.
func (r *Row) add(other *Row) {
	r.Received += other.Received
	r.Accepted += other.Accepted
	r.Duplicates += other.Duplicates
	r.Bytes += other.Bytes
	if other.Since.Before(r.Since) {
		r.Since = other.Since
	}
	for _, state := range []events.State{events.StateDropped, events.StateRejected, events.StateFailed} {
		reasons := r.byState(state)
		for reason, n := range *other.byState(state) {
			if *reasons == nil {
				*reasons = map[string]uint64{}
			}
			(*reasons)[reason] += n
		}
	}
}
