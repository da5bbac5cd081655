package events

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Resource is what a limit counts. Each event belongs to one resource.
type Resource uint8

// The resources. Their names are PostHog's where PostHog has such a resource, except that its llm_events are called ai.
const (
	ResourceEvents Resource = iota
	ResourceRecordings
	ResourceExceptions
	ResourceAI
	ResourceLogs
	ResourceSurveys
	resourceCount
)

var resourceNames = [resourceCount]string{"events", "recordings", "exceptions", "ai", "logs", "surveys"}

// ResourceCount is the number of resources: a resource is less than that.
const ResourceCount = int(resourceCount)

// Resources returns every resource.
func Resources() []Resource {
	resources := make([]Resource, resourceCount)
	for i := range resources {
		resources[i] = Resource(i)
	}
	return resources
}

func (r Resource) String() string {
	if r < resourceCount {
		return resourceNames[r]
	}
	return "unknown"
}

// ParseResource returns the resource of a name.
func ParseResource(name string) (Resource, error) {
	for r, known := range resourceNames {
		if name == known {
			return Resource(r), nil
		}
	}
	return 0, fmt.Errorf("must be one of %s, got %q", strings.Join(resourceNames[:], ", "), name)
}

// surveyNames are the names of the events of surveys.
var surveyNames = [...]string{surveyPrefix + "shown", surveyPrefix + "sent", surveyPrefix + "dismissed"}

const surveyPrefix = "survey "

// productTour marks a survey that is a step of a product tour, which PostHog does not count as a survey.
const productTour = `"$product_tour_id"`

// Resource returns the resource that the event belongs to.
func (e *Event) Resource() Resource {
	switch e.Lane {
	case LaneRecordings:
		return ResourceRecordings
	case LaneLogs:
		return ResourceLogs
	case LaneExceptions:
		return ResourceExceptions
	case LaneAI:
		return ResourceAI
	}
	switch {
	case strings.HasPrefix(e.Name, "$ai_"):
		return ResourceAI
	case e.Name == "$exception":
		return ResourceExceptions
	case strings.HasPrefix(e.Name, surveyPrefix) && slices.Contains(surveyNames[:], e.Name) &&
		!bytes.Contains(e.Raw.Properties, []byte(productTour)):
		return ResourceSurveys
	}
	return ResourceEvents
}

// Period is the length of a quota's window, by the calendar of the project's time zone.
type Period uint8

// The periods.
const (
	PerMinute Period = iota
	PerHour
	PerDay
	PerMonth
	periodCount
)

var periodNames = [periodCount]string{"minute", "hour", "day", "month"}

func (p Period) String() string {
	if p < periodCount {
		return periodNames[p]
	}
	return "unknown"
}

// Periods returns every period.
func Periods() []Period {
	periods := make([]Period, periodCount)
	for i := range periods {
		periods[i] = Period(i)
	}
	return periods
}

// ParsePeriod returns the period of a name.
func ParsePeriod(name string) (Period, error) {
	for p, known := range periodNames {
		if name == known {
			return Period(p), nil
		}
	}
	return 0, fmt.Errorf("must be one of %s, got %q", strings.Join(periodNames[:], ", "), name)
}

// Window returns the window of the period that holds t, in the calendar of t's location. A day that begins or ends with
// a change to or from summer time has 23 or 25 hours.
func (p Period) Window(t time.Time) (start, end time.Time) {
	year, month, day := t.Date()
	switch p {
	case PerMonth:
		return midnight(year, month, 1, t.Location()), midnight(year, month+1, 1, t.Location())
	case PerDay:
		return midnight(year, month, day, t.Location()), midnight(year, month, day+1, t.Location())
	case PerHour:
		// An offset of half an hour moves the hours, too: so an hour is counted off from the clock on the wall.
		start = t.Add(-time.Duration(t.Minute())*time.Minute - time.Duration(t.Second())*time.Second -
			time.Duration(t.Nanosecond()))
		return start, start.Add(time.Hour)
	default:
		start = t.Add(-time.Duration(t.Second())*time.Second - time.Duration(t.Nanosecond()))
		return start, start.Add(time.Minute)
	}
}

// midnight returns when a day begins: at 0:00, and at the first one if the clocks show it twice. Where summer time
// begins at midnight, as in Santiago and Havana, no clock shows 0:00 on that day, and the day begins with the change.
// time.Date promises nothing for such days.
func midnight(year int, month time.Month, day int, zone *time.Location) time.Time {
	start := time.Date(year, month, day, 0, 0, 0, 0, zone)
	change, next := start.ZoneBounds()
	if start.Hour() > 12 {
		return next // an hour of the day before
	}
	if !change.IsZero() {
		_, before := change.Add(-time.Nanosecond).Zone()
		_, after := change.Zone()
		if first := start.Add(time.Duration(after-before) * time.Second); after < before && first.Before(change) {
			return first
		}
	}
	return start
}

// Quota is how many events of a resource a project may send in a period.
type Quota struct {
	Resource Resource
	Period   Period
	Limit    int64
}

// String writes the quota as ParseQuota reads it.
func (q Quota) String() string { return fmt.Sprintf("%s=%d/%s", q.Resource, q.Limit, q.Period) }

// ParseQuota reads a quota such as "events=1000000/month".
func ParseQuota(text string) (Quota, error) {
	resource, limit, period, err := parseLimit(text)
	if err != nil {
		return Quota{}, fmt.Errorf("%w: a quota is such as events=1000000/month", err)
	}
	of, err := ParsePeriod(period)
	if err != nil {
		return Quota{}, fmt.Errorf("the period %w", err)
	}
	return Quota{Resource: resource, Period: of, Limit: limit}, nil
}

// Rate is how fast a project, or a user of a project, may send events of a resource.
type Rate struct {
	Resource Resource
	// Limit is how many events pass in Per, which is a second, a minute or an hour.
	Limit int64
	Per   time.Duration
	// Burst is how many events pass at once. It is at least 1.
	Burst int64
}

var rateUnits = []struct {
	name string
	per  time.Duration
}{{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}}

// usualBurst is the burst of a rate that names none, as a multiple of what passes in a second.
const usualBurst = 10

// Interval is the time that one event takes.
func (r Rate) Interval() time.Duration { return max(1, r.Per/time.Duration(r.Limit)) }

// String writes the rate as ParseRate reads it.
func (r Rate) String() string {
	for _, unit := range rateUnits {
		if unit.per == r.Per {
			return fmt.Sprintf("%s=%d/%s burst=%d", r.Resource, r.Limit, unit.name, r.Burst)
		}
	}
	return fmt.Sprintf("%s=%d/%s burst=%d", r.Resource, r.Limit, r.Per, r.Burst)
}

// ParseRate reads a rate such as "events=100/s" or "events=100/s burst=5000". The unit of time is s, m or h. A rate
// without a burst has ten times of what passes in a second.
func ParseRate(text string) (Rate, error) {
	const example = "a rate is such as events=100/s or events=100/s burst=5000"
	head, burst, given := strings.Cut(text, " ")
	resource, limit, unit, err := parseLimit(head)
	if err != nil {
		return Rate{}, fmt.Errorf("%w: %s", err, example)
	}
	rate := Rate{Resource: resource, Limit: limit}
	for _, known := range rateUnits {
		if unit == known.name {
			rate.Per = known.per
		}
	}
	switch {
	case rate.Per == 0:
		return Rate{}, fmt.Errorf("the unit of time must be s, m or h, got %q: %s", unit, example)
	case limit == 0:
		return Rate{}, fmt.Errorf("a rate must not be 0, got %q: to keep events out, disable the project or drop them "+
			"by a rule", text)
	case time.Duration(limit) > rate.Per:
		return Rate{}, fmt.Errorf("a rate must not be more than one event a nanosecond, got %q", text)
	}
	rate.Burst = max(1, int64(usualBurst*float64(limit)/rate.Per.Seconds()))
	if given {
		number, found := strings.CutPrefix(strings.TrimSpace(burst), "burst=")
		if rate.Burst, err = strconv.ParseInt(number, 10, 64); err != nil || !found || rate.Burst < 1 {
			return Rate{}, fmt.Errorf("the burst must be a positive whole number, got %q: %s", burst, example)
		}
	}
	if float64(rate.Burst)*float64(rate.Interval()) > math.MaxInt64/4 {
		return Rate{}, fmt.Errorf("the burst is too large for the rate, got %q", text)
	}
	return rate, nil
}

// parseLimit reads RESOURCE=NUMBER/UNIT.
func parseLimit(text string) (resource Resource, limit int64, unit string, err error) {
	name, rest, found := strings.Cut(strings.TrimSpace(text), "=")
	number, unit, divided := strings.Cut(rest, "/")
	if !found || !divided {
		return 0, 0, "", fmt.Errorf("must be RESOURCE=NUMBER/TIME, got %q", text)
	}
	if resource, err = ParseResource(name); err != nil {
		return 0, 0, "", fmt.Errorf("the resource %w", err)
	}
	if limit, err = strconv.ParseInt(number, 10, 64); err != nil || limit < 0 {
		return 0, 0, "", fmt.Errorf("the number must be a whole number that is not negative, got %q", number)
	}
	return resource, limit, unit, nil
}

// Over is what becomes of events that are over a rate.
type Over uint8

// The ways to treat events over a rate.
const (
	// OverOverflow: they go to the overflow topic of their lane, without a key. Lanes without such a topic keep them.
	OverOverflow Over = iota
	// OverDrop: they are dropped, and the client is answered as if they were kept.
	OverDrop
	// OverReject: the client is asked to send them again later.
	OverReject
	overCount
)

var overNames = [overCount]string{"overflow", "drop", "reject"}

func (o Over) String() string {
	if o < overCount {
		return overNames[o]
	}
	return "unknown"
}

// ParseOver reads the name of a way.
func ParseOver(name string) (Over, error) {
	for o, known := range overNames {
		if name == known {
			return Over(o), nil
		}
	}
	return 0, fmt.Errorf("must be one of %s, got %q", strings.Join(overNames[:], ", "), name)
}

// Limits is how much a project may send.
type Limits struct {
	// Zone is the time zone whose calendar the quotas follow. Nil is UTC.
	Zone *time.Location
	// Quotas may be several for one resource: an event must be within all of them.
	Quotas []Quota
	// Rates is at most one for a resource: how fast the project may send. UserRates is the same for each distinct_id of
	// the project.
	Rates, UserRates []Rate
	// Over is what becomes of events that are over a rate. Events over a quota are dropped.
	Over Over
	// Whole says that the events of a request pass a quota or a rate only together.
	Whole bool
}
